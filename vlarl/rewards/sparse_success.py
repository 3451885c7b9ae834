"""The paper's reward (section 4.2, reward design)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlarl.rewards.reward import RewardInput


def sparse_success(decision: RewardInput) -> NDArray[np.float32]:
    """1 where an episode ends with its goal achieved, else 0."""
    return (decision.after.done & decision.after.success).astype(np.float32)
