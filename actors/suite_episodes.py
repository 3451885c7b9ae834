"""Episodes of a run with several suites: a stream's are of the suite that its server simulates.

Each suite has an `EpisodeSource` of its own, numbered by the streams of the whole run. What tasks
are called here is said in `arena.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.arena import named
from actors.episodes import EpisodeSource
from actors.task_allocation import TaskAllocation
from vlarl.allocation import difficulty, servers_by_difficulty
from vlarl.config.process_schema import AllocationConfig
from vlarl.errors import ConfigError
from vlarl.types import EpisodeStart


class SuiteEpisodes:
    """An endless sequence of episodes for every stream, and who has how many servers.

    Args:
        tasks: suite -> tasks to draw from.
        seed: as of `EpisodeSource`.
        suites: suite of each server.
        streams: of each server, its stream ids.
        config: how tasks and suites are allocated.

    Raises:
        ConfigError: if an allocation would have no effect, or a suite has fewer environments than
            tasks.
    """

    def __init__(
        self,
        tasks: Mapping[str, Sequence[str]],
        seed: Sequence[int],
        suites: Sequence[str],
        streams: Sequence[Sequence[int]],
        config: AllocationConfig,
    ) -> None:
        uniform = config.kind == "uniform"
        if not uniform and not config.suites and max(map(len, tasks.values())) < 2:
            raise ConfigError(
                f"env.allocation.kind = {config.kind}: has no effect with one task in each suite. "
                "Leave it out, or add env.allocation.suites=true."
            )
        self._config = config
        self._streams = [list(own) for own in streams]
        self._suites = list(suites)
        total = sum(map(len, streams))
        self._sources: dict[str, EpisodeSource] = {}
        for suite, own in tasks.items():
            chooses = not uniform and (len(own) > 1 or config.suites)
            allocation = TaskAllocation(config, own, self._of(suite)) if chooses else None
            self._sources[suite] = EpisodeSource(own, seed, total, allocation=allocation)

    @property
    def counters(self) -> list[int]:
        """Episodes handed out so far, for each stream."""
        every = [source.counters for source in self._sources.values()]
        return [sum(own) for own in zip(*every, strict=True)]

    def next(self, stream: int) -> EpisodeStart:
        """The stream's next episode, by its suite's own name of the task."""
        server = next(i for i, own in enumerate(self._streams) if stream in own)
        return self._sources[self._suites[server]].next(stream)

    def environments(self) -> dict[str, int]:
        """`SUITE/TASK` -> environments; a task that need not share its suite's has all of them."""
        if self._config.kind == "uniform":
            return {}
        found: dict[str, int] = {}
        for suite, source in self._sources.items():
            own = source.environments() or dict.fromkeys(source.tasks, len(self._of(suite)))
            found |= {named(suite, task): count for task, count in own.items()}
        return found

    def rates(self) -> dict[str, float]:
        """`SUITE/TASK` -> running success rate, of the tasks that have one."""
        return {
            named(suite, task): rate
            for suite, source in self._sources.items()
            for task, rate in source.rates().items()
        }

    def allocate(self, episodes: Mapping[str, int], successes: Mapping[str, int]) -> None:
        """Allocate the tasks of every suite anew; both arguments have `SUITE/TASK` as keys."""
        for suite, source in self._sources.items():
            source.allocate(_own(suite, episodes), _own(suite, successes))

    def due(self) -> dict[int, str]:
        """Servers that are to change their suite, by running success -> the suite they go to.

        A suite is as hard as its tasks are on average. It keeps so many servers that each of its
        tasks can have an environment.
        """
        if not self._config.suites:
            return {}
        config, names = self._config, list(self._sources)
        hard = [
            difficulty(np.array(list(source.rates().values())), config.kind).mean()
            for source in self._sources.values()
        ]
        current = np.array([self._suites.count(name) for name in names])
        each = min(map(len, self._streams))
        fewest = max(-(-len(source.tasks) // each) for source in self._sources.values())
        counts = servers_by_difficulty(
            current, np.array(hard), config.floor, config.ceiling, fewest
        )
        takers = [name for name, more in zip(names, counts - current, strict=True)
                  for _ in range(max(more, 0))]  # fmt: skip
        moves: dict[int, str] = {}
        surplus = dict(zip(names, (current - counts).tolist(), strict=True))
        # The last servers of a suite go first.
        for server in reversed(range(len(self._suites))):
            if surplus[self._suites[server]] > 0:
                surplus[self._suites[server]] -= 1
                moves[server] = takers[len(moves)]
        return moves

    def move(self, moves: Mapping[int, str]) -> None:
        """From now on the streams of these servers have episodes of these suites."""
        changed = {self._suites[server] for server in moves} | set(moves.values())
        for server, suite in moves.items():
            self._suites[server] = suite
        for suite in changed:
            allocation = self._sources[suite].allocation
            if allocation is not None:
                allocation.move_to(self._of(suite))

    def state_dict(self) -> dict[str, Any]:
        """Every suite's, and which servers are whose, as plain values."""
        states = {suite: source.state_dict() for suite, source in self._sources.items()}
        return {"counters": self.counters, "suites": list(self._suites), "sources": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, for as many servers; they must have been moved already.

        Raises:
            UserError: if the run allocated to other tasks.
        """
        assert list(state["suites"]) == self._suites
        for suite, source in self._sources.items():
            source.load_state_dict(state["sources"][suite])

    def _of(self, suite: str) -> list[int]:
        """Streams of a suite's servers."""
        pairs = zip(self._suites, self._streams, strict=True)
        return [stream for name, own in pairs if name == suite for stream in own]


def _own(suite: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Those of one suite, by its own names of the tasks."""
    start = f"{suite}/"
    return {task.removeprefix(start): n for task, n in counts.items() if task.startswith(start)}
