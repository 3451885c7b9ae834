"""Proprioceptive state as a policy is shown it (paper section 5.2.4). Off by default.

Each dimension is mapped from its 1st and 99th percentile to [-1, 1], as actions are (eq. 5), and
either cut into bins for the prompt (`vlm_prompt`) or given to the action expert as it is (`dit`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.codec import ActionStats, fit_action_stats

BINS = 256


class StateCodec:
    """What one dataset's statistics make of states in SI units."""

    def __init__(self, stats: ActionStats) -> None:
        """`stats` are of the `d` dimensions of the state."""
        self.stats = stats

    @staticmethod
    def of_unit_range(dimensions: int) -> StateCodec:
        """States already in [-1, 1], for when no dataset has been seen yet."""
        ones = np.ones(dimensions, np.float32)
        return StateCodec(ActionStats(-ones, ones))

    def normalize(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, d] in SI units -> [n, d] clipped to [-1, 1]; 0 where the percentiles coincide.

        Raises:
            ValueError: for another shape, or a value that is not finite.
        """
        low, dimensions = self.stats.low, len(self.stats.low)
        if state.ndim != 2 or state.shape[1] != dimensions:
            raise ValueError(
                f"the state is {state.shape}, the model was made for [n, {dimensions}]: give the "
                "same numbers as its training data has"
            )
        if not np.isfinite(state).all():
            rows = np.flatnonzero(~np.isfinite(state).all(axis=1)).tolist()
            raise ValueError(f"the state contains NaN or infinity in rows {rows[:8]}")
        span = self.stats.high - low
        unit = 2.0 * (state - low) / np.where(span > 0, span, 1.0) - 1.0
        return np.clip(np.where(span > 0, unit, 0.0), -1.0, 1.0).astype(np.float32)

    def bins(self, state: NDArray[np.float32]) -> NDArray[np.int64]:
        """[n, d] in SI units -> [n, d] in 0..255, bins of equal width between the percentiles.

        Raises:
            ValueError: as `normalize`.
        """
        share = (self.normalize(state) + 1.0) / 2.0
        return np.minimum(share * BINS, BINS - 1).astype(np.int64)

    def middle(self, count: int) -> NDArray[np.float32]:
        """[count, d] the middle of each range, in SI units: a stand-in where no state is known."""
        return np.tile((self.stats.low + self.stats.high) / 2, (count, 1))


def fit_state_codec(states: NDArray[np.floating[Any]]) -> StateCodec:
    """From the exact percentiles of all states [M, d] of a dataset.

    Raises:
        ValueError: if there are none, or any is not finite.
    """
    if states.ndim != 2 or not states.size:
        raise ValueError(f"states must be [M, d] with M and d above 0, not {states.shape}")
    if not np.isfinite(states).all():
        raise ValueError("the dataset's states contain NaN or infinity")
    return StateCodec(fit_action_stats(states))
