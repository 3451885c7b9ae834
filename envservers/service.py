"""A suite with its contract enforced and its work counted: what every client finally talks to.

Requests and answers are checked here against the spec, so that a wrong shape or a NaN is named
where it arises, in a process and in `inprocess` mode alike. No sockets.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from envservers.answers import check_answer
from vlarl.env_protocol import Suite
from vlarl.errors import EnvContractError
from vlarl.types import EpisodeStart, TimeStep

HEAVY_MODULES = ("torch", "ray", "transformers", "omegaconf")
"""Modules that a simulator process has no need of; `stats` says whether one crept in."""


class SuiteService:
    """`suite` with checks before and after each call, and counters."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.spec = suite.spec
        self.num_envs = suite.num_envs
        self._started = time.monotonic()
        self._busy_seconds = 0.0
        self._calls = 0
        self._episodes_started = 0
        self._episodes_ended = 0
        self._env_steps = 0

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """`Suite.reset`, checked."""
        self._check_ids(env_ids)
        if len(starts) != len(env_ids):
            raise ValueError(f"{len(env_ids)} environments but {len(starts)} episode starts")
        for start in starts:
            if start.task not in self.spec.tasks:
                raise ValueError(
                    f"unknown task {start.task!r}; tasks: {', '.join(self.spec.tasks)}"
                )
        answer = self._timed(lambda: self.suite.reset(env_ids, starts))
        check_answer(self.spec, answer, env_ids)
        self._episodes_started += len(env_ids)
        return answer

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """`Suite.step`, checked."""
        self._check_ids(env_ids)
        channels = len(self.spec.channels)
        valid_shape = actions.ndim == 3 and actions.shape[0] == len(env_ids)
        if not valid_shape or actions.shape[1] < 1 or actions.shape[2] != channels:
            raise ValueError(
                f"actions have shape {list(actions.shape)}, "
                f"expected [{len(env_ids)}, h, {channels}]"
            )
        if not np.isfinite(actions).all():
            raise ValueError("actions contain NaN or infinity")
        answer = self._timed(lambda: self.suite.step(env_ids, actions, record))
        check_answer(self.spec, answer, env_ids)
        self._episodes_ended += int(answer.done.sum())
        self._env_steps += int(answer.executed.sum())
        return answer

    def expert_actions(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, c] what the suite's scripted expert would do now in these environments.

        Raises:
            ValueError: if the suite has none, or for an environment without a running episode.
        """
        self._check_ids(env_ids)
        expert = getattr(self.suite, "expert_actions", None)
        if expert is None:
            raise ValueError(f"suite {self.spec.suite!r} has no scripted expert")
        actions: NDArray[np.float32] = expert(env_ids)
        if (
            actions.shape != (len(env_ids), len(self.spec.channels))
            or not np.isfinite(actions).all()
        ):
            raise EnvContractError(
                f"the expert of suite {self.spec.suite!r} answered {actions.tolist()}"
            )
        return actions

    def stats(self) -> dict[str, float]:
        """Counters since the start; times in seconds, memory in bytes (proportional share)."""
        uptime = time.monotonic() - self._started
        return {
            "pid": float(os.getpid()),
            "num_envs": float(self.num_envs),
            "calls": float(self._calls),
            "episodes_started": float(self._episodes_started),
            "episodes_ended": float(self._episodes_ended),
            "env_steps": float(self._env_steps),
            "busy_seconds": self._busy_seconds,
            # Suites that draw with a renderer of their own count it; it is a part of the above.
            "render_seconds": float(getattr(self.suite, "render_seconds", 0.0)),
            "renders": float(getattr(self.suite, "renders", 0)),
            "idle_seconds": uptime - self._busy_seconds,
            "memory_bytes": float(proportional_memory(os.getpid())),
            **{f"imported_{name}": float(name in sys.modules) for name in HEAVY_MODULES},
        }

    def _timed(self, call: Callable[[], TimeStep]) -> TimeStep:
        started = time.monotonic()
        try:
            return call()
        finally:
            self._busy_seconds += time.monotonic() - started
            self._calls += 1

    def _check_ids(self, env_ids: NDArray[np.int64]) -> None:
        if env_ids.ndim != 1 or len(env_ids) == 0:
            raise ValueError(f"env_ids have shape {list(env_ids.shape)}, expected [n] with n > 0")
        if len(env_ids) > self.num_envs:
            raise ValueError(f"{len(env_ids)} env_ids, there are {self.num_envs} environments")
        if env_ids.min() < 0 or env_ids.max() >= self.num_envs:
            raise ValueError(f"env_ids {env_ids.tolist()} outside 0..{self.num_envs - 1}")
        if len(np.unique(env_ids)) != len(env_ids):
            raise ValueError(f"env_ids {env_ids.tolist()} name an environment twice")


def proportional_memory(pid: int) -> int:
    """Bytes of a process, pages shared with others counted by their share (Linux PSS)."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/{pid}/smaps_rollup has no Pss line")
