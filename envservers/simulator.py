"""What an adapter of someone else's simulator implements: one environment, one episode at a time.

`SlotSuite` makes a suite of several. Whatever an adapter imports of its simulator it imports when
an instance is made, never at the top: the class itself is read where the simulator is missing.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vlarl.types import EpisodeStart


class Outcome(NamedTuple):
    """What one control step led to."""

    reward: float
    """The simulator's own."""
    success: bool
    """Whether the goal is achieved now."""
    failed: bool = False
    """Whether the episode is over without success, for a reason other than its time."""
    expired: bool = False
    """Whether the task's own time is up, where that is less than the spec's."""
    instruction: str = ""
    """What the policy is told from now on, where a step changes it; empty: as before."""


class Simulator(Protocol):
    """One environment. After `reset`, everything follows from the actions."""

    def reset(self, start: EpisodeStart) -> str:
        """Begin the episode that `start` decides; returns its instruction.

        Raises:
            ValueError: for a start that there is none of.
        """
        ...

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """Execute one control step, `action` [c] in the channels' units; draws no image."""
        ...

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Camera of the spec -> `[height, width, 3]`, drawn now."""
        ...

    def state(self) -> NDArray[np.float32]:
        """[state_dim] proprioception, SI units."""
        ...

    def info(self) -> dict[str, float]:
        """Privileged scalars that a reward function may read, always under the same names."""
        ...

    def expert_action(self) -> NDArray[np.float32]:
        """[c] what the scripted expert would do now.

        Raises:
            NotImplementedError: if there is none.
        """
        ...

    def snapshot(self) -> bytes:
        """Physics, random state and whatever else the rest of the episode depends on.

        Raises:
            NotImplementedError: if the simulator cannot.
        """
        ...

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`, in this instance or another."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
