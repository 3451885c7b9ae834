"""Which task the next episode of a stream is of, where tasks get environments by difficulty.

Keeps the running success rates of the tasks and recomputes the allocation after each window. The
mathematics is `vlarl.allocation`; the uniform mixture needs none of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.allocation import allocate, difficulty, kept_or_changed, reassigned, running_rates
from vlarl.config.process_schema import AllocationConfig
from vlarl.errors import ConfigError, UserError


class TaskAllocation:
    """A task for every stream; a stream that changes its task does so with its next episode.

    Args:
        config: kind (not `uniform`), bounds, smoothing, margin.
        tasks: names.
        streams: ids of the environments.

    Raises:
        ConfigError: for a single task, unless suites have servers by difficulty, or fewer
            environments than tasks.
    """

    def __init__(
        self, config: AllocationConfig, tasks: Sequence[str], streams: Sequence[int]
    ) -> None:
        key = f"env.allocation.kind = {config.kind}"
        if len(tasks) < 2 and not config.suites:
            raise ConfigError(f"{key}: has no effect with one task ({tasks[0]}). Leave it out.")
        if len(streams) < len(tasks):
            raise ConfigError(
                f"{key}: a rollout worker has {len(streams)} environments for {len(tasks)} tasks, "
                "and each needs one. Use more env.servers or env.envs_per_server, or fewer "
                "env.tasks."
            )
        self._config = config
        self._tasks = tuple(tasks)
        self._successes = np.zeros(len(tasks))
        self._episodes = np.zeros(len(tasks))
        self._streams = list(streams)
        # Nothing is known yet, so that all tasks are equally hard.
        self._assignment = np.arange(len(streams)) % len(tasks)

    def task_of(self, stream: int) -> str:
        """Of the stream's next episode."""
        return self._tasks[self._assignment[self._streams.index(stream)]]

    def environments(self) -> dict[str, int]:
        """Task -> environments whose next episode is of it."""
        return dict(zip(self._tasks, self._counts().tolist(), strict=True))

    def rates(self) -> dict[str, float]:
        """Task -> running success rate."""
        return dict(zip(self._tasks, self._rates().tolist(), strict=True))

    def update(self, episodes: Mapping[str, int], successes: Mapping[str, int]) -> None:
        """Take in what ended in a window, and allocate anew.

        Args:
            episodes: task -> episodes that ended; a task without any keeps its rate.
            successes: task -> how many of them succeeded.
        """
        for place, task in enumerate(self._tasks):
            if episodes.get(task, 0):
                for known, new in ((self._episodes, episodes), (self._successes, successes)):
                    known[place] = self._config.smoothing * known[place] + new[task]
        counts = kept_or_changed(self._counts(), self._proposed(), self._config.margin)
        self._assignment = reassigned(self._assignment, counts)

    def move_to(self, streams: Sequence[int]) -> None:
        """From now on these are the environments; those that stay change as few tasks as can."""
        before = dict(zip(self._streams, self._assignment.tolist(), strict=True))
        self._streams = list(streams)
        self._assignment = np.array([before.get(stream, 0) for stream in streams])
        self._assignment = reassigned(self._assignment, self._proposed())

    def state_dict(self) -> dict[str, Any]:
        """Evidence and assignment, as plain values."""
        return {
            "tasks": list(self._tasks),
            "episodes": self._episodes.tolist(),
            "successes": self._successes.tolist(),
            "assignment": self._assignment.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, for as many streams.

        Raises:
            UserError: if the run had other tasks.
        """
        if tuple(state["tasks"]) != self._tasks:
            raise UserError(
                f"cannot resume: the checkpoint allocates to the tasks {', '.join(state['tasks'])},"
                f" this run to {', '.join(self._tasks)}; set env.tasks as before"
            )
        self._episodes = np.array(state["episodes"])
        self._successes = np.array(state["successes"])
        self._assignment = np.array(state["assignment"])

    def _proposed(self) -> NDArray[np.int64]:
        config = self._config
        hard = difficulty(self._rates(), config.kind)
        return allocate(hard, len(self._assignment), config.floor, config.ceiling)

    def _counts(self) -> NDArray[np.int64]:
        return np.bincount(self._assignment, minlength=len(self._tasks))

    def _rates(self) -> NDArray[np.float64]:
        return running_rates(self._successes, self._episodes)
