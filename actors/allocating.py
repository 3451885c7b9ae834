"""Gives tasks their environments and suites their servers, by which of them fail how often.

Who gets what is decided elsewhere (`task_allocation.py`, `suite_episodes.py`). Here the servers
that are to simulate another suite are replaced, and their lanes begin anew.

Where rollout goes on while others learn, two threads come here: the one that takes segments
allocates by them, the one that steps environments moves servers, each when its window is full.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
        in_turn: whether rollout waits while `allocate` is called, so that servers move then.
            Otherwise they wait for `move_due`.
    """

    def __init__(
        self,
        source: Episodes,
        lanes: Sequence[Lane],
        move: Move | None,
        alone: bool,
        in_turn: bool = True,
    ) -> None:
        self._source, self._lanes = source, lanes
        self._move_server, self._alone, self._in_turn = move, alone, in_turn
        # Held while what an allocation consists of changes or is read as a whole, and never while a
        # server starts. An environment's next episode is drawn without it, by the thread that moves
        # servers: whether that meets the old or the new task is the same to it.
        self._lock = threading.RLock()
        self._due: dict[int, str] = {}

    @property
    def movable(self) -> bool:
        """Whether a server may be replaced by one of another suite."""
        return self._move_server is not None

    def after(self, stats: RolloutStats) -> RolloutStats:
        """`stats` of a window with its allocation; if alone, allocate for the next one by it."""
        with self._lock:
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
        with self._lock:
            self._source.allocate(episodes, successes)
            if isinstance(self._source, SuiteEpisodes):
                # By what is so now: a move that was due and has not begun may no longer be.
                self._due = self._source.due()
            rates = self._source.rates()
        if self._in_turn:
            self.move(self._due)
        return rates

    def move_due(self) -> list[int]:
        """Move the servers that are to and are between two windows; the numbers of those moved.

        No decision is lost by it; episodes that run there end. Of the thread that steps.
        """
        with self._lock:
            between = {i: suite for i, suite in self._due.items() if self._lanes[i].between_windows}
            moves = self._noted(between)
        self._carry_out(moves)
        return list(moves)

    def move(self, suites: Mapping[int, str]) -> None:
        """Have these servers simulate these suites, those that do not yet."""
        with self._lock:
            moves = self._noted(suites)
        self._carry_out(moves)

    def _noted(self, suites: Mapping[int, str]) -> dict[int, str]:
        """Of these moves, those that change anything, as if they had been made.

        Who allocates while a server starts must not count it among its old suite's: that one could
        be left with fewer servers than its tasks need.
        """
        moves = {i: suite for i, suite in suites.items() if self._lanes[i].suite != suite}
        if moves:
            assert isinstance(self._source, SuiteEpisodes)
            self._source.move(moves)
        return moves

    def _carry_out(self, moves: Mapping[int, str]) -> None:
        for index, suite in moves.items():
            assert self._move_server is not None
            self._lanes[index].move(*self._move_server(index, suite), suite)

    def state_dict(self) -> dict[str, Any]:
        """Of the episodes, and of what allocates them."""
        with self._lock:
            return self._source.state_dict()
