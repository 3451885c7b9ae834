"""What a simulation suite implements, and what every client of one looks like.

A `Suite` is batched: it owns `num_envs` environments and is told which of them to reset or step.
Servers wrap a suite in a process; `EnvClient` is the same interface seen from outside, with
requests and answers apart so that simulation and inference overlap. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlarl.types import EnvSpec, EpisodeStart, TimeStep


@runtime_checkable
class Suite(Protocol):
    """`num_envs` environments of one suite in one process.

    One that draws its own images may say how long that took so far, as `render_seconds`; one that
    takes long to begin does so in `load()`; one with experts has `expert_actions(env_ids)`.
    """

    spec: EnvSpec
    num_envs: int

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """Start episodes in these slots; rows come back in the order of `env_ids`."""
        ...

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """Execute `actions` [n, h, c] (simulator units) until the chunk or the episode ends.

        Raises:
            ValueError: for a slot that was never reset or whose episode has ended, for NaN or for a
                wrong shape.
        """
        ...

    def snapshot(self) -> bytes:
        """Physics, random state and counters of all slots; NotImplementedError if it can't."""
        ...

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`."""
        ...

    def close(self) -> None:
        """Free what the suite holds; safe to call twice."""
        ...


@runtime_checkable
class EnvClient(Protocol):
    """A suite behind a process boundary, or not: `submit_*` now, `receive` later, in order."""

    spec: EnvSpec
    num_envs: int

    def submit_reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """Ask for episodes to start; the answer is the next `receive`."""
        ...

    def submit_step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> None:
        """Ask for a chunk to be executed; the answer is the next `receive`."""
        ...

    def ready(self) -> bool:
        """Whether `receive` would answer without waiting."""
        ...

    def receive(self, timeout: float | None = None) -> TimeStep:
        """The answer to the oldest request not yet answered.

        Raises:
            EnvServerError: the suite raised; carries the remote traceback.
            EnvContractError: the suite answered what it may not, such as NaN.
            EnvServerDied: the process is gone, or `timeout` seconds (default: the client's
                deadline) passed.
        """
        ...

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """`submit_reset` and `receive`."""
        ...

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """`submit_step` and `receive`."""
        ...

    def stats(self) -> dict[str, float]:
        """Counters of the server: episodes, steps, seconds by kind, memory in bytes."""
        ...

    def submit_stats(self) -> None:
        """Ask for `stats`, unless that was asked and not told yet; waits for nothing."""
        ...

    def told_stats(self) -> dict[str, float] | None:
        """The answer, once; None before it came with that to a later request.

        Raises:
            EnvServerError: as `receive`.
        """
        ...

    def close(self) -> None:
        """End the server if this client started it; safe to call twice."""
        ...
