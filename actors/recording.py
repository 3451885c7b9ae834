"""Demonstrations as they are made: which episodes are still wanted, and what is kept of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.held_out import HELD_OUT
from vlarl.data.episode import Episode
from vlarl.errors import UserError
from vlarl.types import EpisodeStart, TimeStep

MAX_FAILURES = 20
"""Of a task, for each episode that did not fail, and of two more: then collecting gives up."""


@dataclass
class Recording:
    """One running episode."""

    start: EpisodeStart
    instruction: str
    images: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)
    states: list[NDArray[np.float32]] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, before: TimeStep, row: int, action: NDArray[np.float32]) -> None:
        """One control step: what was seen before it, and what is to be imitated."""
        for name, images in before.images.items():
            self.images.setdefault(name, []).append(images[row])
        self.states.append(before.state[row])
        self.actions.append(action)

    def finish(self, success: bool) -> Episode:
        """The whole of it."""
        extra: dict[str, Any] = {
            "scene_task": self.start.task,
            "scene_seed": self.start.seed,
            "success": success,
        }
        return Episode(
            images={name: np.stack(images) for name, images in self.images.items()},
            state=np.stack(self.states),
            action=np.stack(self.actions),
            instruction=self.instruction,
            extra=extra,
        )


class EpisodeQuota:
    """Hands out episode starts until every task has its share of kept episodes.

    No more episodes of a task run than are still wanted of it: otherwise the quick ones would win.
    """

    def __init__(self, tasks: Sequence[str], episodes: int, seed: int) -> None:
        """`episodes` in all, spread evenly over `tasks`."""
        share, rest = divmod(episodes, len(tasks))
        self._open = {task: share + (index < rest) for index, task in enumerate(tasks)}
        self._seed, self.attempts = seed, 0
        self._kept, self._failed = dict.fromkeys(tasks, 0), dict.fromkeys(tasks, 0)

    def next(self) -> EpisodeStart | None:
        """The next episode of the task that lacks most, or None if enough are running.

        Raises:
            UserError: for a task of which far more episodes failed than were kept.
        """
        task = max(self._open, key=lambda name: self._open[name])
        if self._open[task] == 0:
            return None
        if self._failed[task] >= MAX_FAILURES * (self._kept[task] + 2):
            raise UserError(
                f"{task}: {self._failed[task]} episodes failed, {self._kept[task]} did not, "
                f"{self._open[task]} are missing: its expert fails too often; leave it out of "
                "tasks, or lower action_noise (and waypoint_noise, where the expert has it)"
            )
        self._open[task] -= 1
        self._kept[task] += 1
        random = np.random.default_rng([self._seed, self.attempts])
        self.attempts += 1
        return EpisodeStart(task, int(random.integers(HELD_OUT)))

    def starts(self, most: int) -> list[EpisodeStart]:
        """The next episodes, at most so many."""
        given: list[EpisodeStart] = []
        while len(given) < most and (start := self.next()) is not None:
            given.append(start)
        return given

    def give_back(self, task: str) -> None:
        """An episode of `task` was not kept: one more is wanted."""
        self._open[task] += 1
        self._kept[task] -= 1
        self._failed[task] += 1
