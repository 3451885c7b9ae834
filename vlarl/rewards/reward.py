"""What a reward function is given and returns. Loading one by name is in `load`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.types import TimeStep


@dataclass(frozen=True)
class RewardInput:
    """One decision of each of `n` environments."""

    before: TimeStep
    """What the policy saw."""
    actions: NDArray[np.float32]
    """[n, h, c] in simulator units; `after.executed` says how many of the h were executed."""
    after: TimeStep
    """What came of it; for an ended episode, its final observation."""


RewardFunction = Callable[[RewardInput], NDArray[np.float32]]
"""From `n` decisions to their rewards [n], all finite."""
