"""Which episode comes next: for training (seeded, endless) and for evaluation (a fixed list).

Training draws scene seeds below `HELD_OUT`, evaluation takes them from there on, so that no
evaluated initial state was ever trained on. What a seed means is the suite's business.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from actors.task_allocation import TaskAllocation
from envservers.held_out import HELD_OUT
from vlarl.errors import UserError
from vlarl.types import EpisodeStart


class Episodes(Protocol):
    """Where a rollout's episodes come from: of one suite (`EpisodeSource`) or of several.

    The latter is `suite_episodes.py`; its tasks are called as in `arena.py`.
    """

    @property
    def counters(self) -> list[int]:
        """Episodes handed out so far, for each stream."""
        ...

    def next(self, stream: int) -> EpisodeStart:
        """The stream's next episode, by the suite's own name of its task."""
        ...

    def environments(self) -> dict[str, int]:
        """See `EpisodeSource`."""
        ...

    def rates(self) -> dict[str, float]:
        """See `EpisodeSource`."""
        ...

    def allocate(self, episodes: Mapping[str, int], successes: Mapping[str, int]) -> None:
        """See `EpisodeSource`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """See `EpisodeSource`."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `EpisodeSource`."""
        ...


class EpisodeSource:
    """An endless sequence of episodes for every stream, each its own.

    Tasks come in shuffled blocks that hold each task once, so that every stream meets them equally
    often, unless an allocation names the task of every stream. An episode depends on
    `(seed, stream, index)` alone, and on the allocation: counters and allocation are the state.

    Args:
        tasks: names to draw from.
        seed: of the run and, where there are several, the worker.
        streams: number of streams.
        limit: scene seeds lie below.
        allocation: of the streams to the tasks; None: each stream meets all tasks.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        seed: Sequence[int],
        streams: int,
        limit: int = HELD_OUT,
        allocation: TaskAllocation | None = None,
    ) -> None:
        if not tasks:
            raise ValueError("an episode source needs at least one task")
        self.tasks = tuple(tasks)
        self._seed = tuple(seed)
        self._limit = limit
        self.counters = [0] * streams
        """Episodes handed out so far, for each stream."""
        self.allocation = allocation

    def next(self, stream: int) -> EpisodeStart:
        """The stream's next episode."""
        index = self.counters[stream]
        self.counters[stream] += 1
        scene = np.random.default_rng([*self._seed, stream, index, 1]).integers(self._limit)
        return EpisodeStart(self._task(stream, index), int(scene))

    def environments(self) -> dict[str, int]:
        """Task -> environments that are its own; empty where each stream meets all tasks."""
        return {} if self.allocation is None else self.allocation.environments()

    def rates(self) -> dict[str, float]:
        """Task -> running success rate; empty likewise."""
        return {} if self.allocation is None else self.allocation.rates()

    def allocate(self, episodes: Mapping[str, int], successes: Mapping[str, int]) -> None:
        """Allocate anew by what ended in a window; see `TaskAllocation.update`."""
        if self.allocation is not None:
            self.allocation.update(episodes, successes)

    def state_dict(self) -> dict[str, Any]:
        """Counters and, if there is one, the allocation, as plain values."""
        state: dict[str, Any] = {"counters": list(self.counters)}
        if self.allocation is not None:
            state["allocation"] = self.allocation.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, for as many streams.

        A run that is resumed with an allocation that it did not have begins that one anew.

        Raises:
            UserError: if the allocation was to other tasks.
        """
        self.counters[:] = state["counters"]
        if self.allocation is not None and "allocation" in state:
            self.allocation.load_state_dict(state["allocation"])

    def _task(self, stream: int, index: int) -> str:
        if self.allocation is not None:
            return self.allocation.task_of(stream)
        block, place = divmod(index, len(self.tasks))
        order = np.random.default_rng([*self._seed, stream, block, 0]).permutation(len(self.tasks))
        return self.tasks[order[place]]


def held_out_starts(tasks: Sequence[str], episodes: int, seed: int) -> list[EpisodeStart]:
    """The initial states of an evaluation: the same for every checkpoint.

    Args:
        tasks: names; episodes are spread over them in turn.
        episodes: in all.
        seed: scene seed of the first; the next ones follow, so no two episodes share a scene.

    Raises:
        UserError: for no tasks, no episodes, or a seed that training may have drawn.
    """
    if not tasks or episodes < 1:
        raise UserError(f"{episodes} episodes of {len(tasks)} tasks: nothing to evaluate")
    if seed < HELD_OUT:
        raise UserError(f"evaluation seed {seed} is not held out: training draws below {HELD_OUT}")
    return [EpisodeStart(tasks[i % len(tasks)], seed + i) for i in range(episodes)]


def swapped_starts(starts: Sequence[EpisodeStart], tasks: Sequence[str]) -> list[EpisodeStart]:
    """The control: the same scenes, told another task; every ordered pair of tasks comes up.

    Raises:
        UserError: for fewer than two tasks.
    """
    if len(tasks) < 2:
        raise UserError("swapping instructions needs at least two tasks")
    swapped = []
    for i, start in enumerate(starts):
        places_on = 1 + i // len(tasks) % (len(tasks) - 1)
        named = tasks[(tasks.index(start.task) + places_on) % len(tasks)]
        swapped.append(dataclasses.replace(start, task=named))
    return swapped
