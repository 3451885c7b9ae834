"""Gives tasks their environments and suites their servers, by which of them fail how often.

Who gets what is decided elsewhere (`task_allocation.py`, `suite_episodes.py`). Here the servers
that are to simulate another suite are replaced, and their lanes begin anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from actors.episodes import Episodes
from actors.lane import Lane
from actors.rollout_stats import RolloutStats
from actors.suite_episodes import SuiteEpisodes
from vlarl.env_protocol import EnvClient
from vlarl.policy import Policy

Move = Callable[[int, str], tuple[EnvClient, Policy]]
"""Has the server behind the client of this number simulate another suite; client and policy of it.
"""


class Allocator:
    """Of one worker's lanes and the episodes that they play.

    Args:
        source: of the episodes.
        lanes: by number of their server.
        move: called for a server that is to simulate another suite; None: none ever is.
        alone: whether these lanes' episodes are all the evidence. Otherwise `allocate` is called
            after each window, with several workers' episodes.
    """

    def __init__(
        self, source: Episodes, lanes: Sequence[Lane], move: Move | None, alone: bool
    ) -> None:
        self._source, self._lanes = source, lanes
        self._move_server, self._alone = move, alone

    @property
    def movable(self) -> bool:
        """Whether a server may be replaced by one of another suite."""
        return self._move_server is not None

    def after(self, stats: RolloutStats) -> RolloutStats:
        """`stats` of a window with its allocation; if alone, allocate for the next one by it."""
        environments = self._source.environments()
        if not environments:
            return stats
        stats = dataclasses.replace(stats, allocation=environments)
        if not self._alone:
            return stats
        rates = self.allocate(stats.episodes, stats.successes)
        return dataclasses.replace(stats, running_success=rates)

    def allocate(
        self, episodes: Mapping[str, int], successes: Mapping[str, int]
    ) -> dict[str, float]:
        """Allocate for the next window by what ended in the last; the running success rates.

        Servers that are to simulate another suite are replaced, so that their streams begin anew.
        """
        self._source.allocate(episodes, successes)
        if isinstance(self._source, SuiteEpisodes):
            self.move(self._source.due())
        return self._source.rates()

    def move(self, suites: Mapping[int, str]) -> None:
        """Have these servers simulate these suites, those that do not yet."""
        moves = {i: suite for i, suite in suites.items() if self._lanes[i].suite != suite}
        if not moves:
            return
        assert self._move_server is not None
        assert isinstance(self._source, SuiteEpisodes)
        for index, suite in moves.items():
            self._lanes[index].move(*self._move_server(index, suite), suite)
        self._source.move(moves)
