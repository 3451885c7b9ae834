"""Actions in simulator units <-> the padded, normalized action tensor (paper section 2.4, eq. 5).

Leading `c` channels carry the task, the rest is zero; a mask says which entries count. The decoder
is the only place that clips what a policy produced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlarl.action_range import refuse_far
from vlarl.contract import Contract
from vlarl.types import Channel


@dataclass(frozen=True)
class ActionStats:
    """1st and 99th percentile of each channel over a whole dataset, in simulator units."""

    low: NDArray[np.float32]
    """[c]"""
    high: NDArray[np.float32]
    """[c]"""

    def __post_init__(self) -> None:
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(f"low {self.low.shape} and high {self.high.shape} must both be [c]")
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError("action statistics must be finite")
        if (self.low > self.high).any():
            raise ValueError(f"low exceeds high in channels {np.nonzero(self.low > self.high)[0]}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as JSON holds them."""
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> ActionStats:
        """Inverse of `to_dict`.

        Raises:
            ValueError: for missing keys or values out of range.
        """
        missing = {"low", "high"} - values.keys()
        if missing:
            raise ValueError(f"action statistics lack {sorted(missing)}")
        return ActionStats(
            np.asarray(values["low"], np.float32), np.asarray(values["high"], np.float32)
        )


def fit_action_stats(actions: NDArray[np.floating[Any]]) -> ActionStats:
    """Exact quantiles of all actions [M, c] of a dataset (not aggregated per-episode ones).

    Raises:
        ValueError: if there are no actions, or any is not finite.
    """
    if actions.ndim != 2 or not len(actions):
        raise ValueError(f"actions must be [M, c] with M > 0, not {actions.shape}")
    low, high = np.quantile(actions.astype(np.float64), (0.01, 0.99), axis=0)
    return ActionStats(low.astype(np.float32), high.astype(np.float32))


class ActionCodec:
    """Both directions of the action representation for one dataset's statistics."""

    def __init__(
        self,
        stats: ActionStats,
        horizon: int,
        channels: int = 64,
        tensor_horizon: int = 16,
        bounds: Sequence[Channel] = (),
    ) -> None:
        """`horizon` is `H_task`, `channels` is `K`, `tensor_horizon` is `H`.

        `bounds` are the embodiment's channels: actions far outside them are refused.

        Raises:
            ValueError: if the task does not fit the tensor.
        """
        if len(stats.low) > channels or not 1 <= horizon <= tensor_horizon:
            raise ValueError(
                f"{len(stats.low)} channels and {horizon} steps do not fit "
                f"a [{tensor_horizon}, {channels}] action tensor"
            )
        self.stats = stats
        self.horizon = horizon
        self.channels = channels
        self.tensor_horizon = tensor_horizon
        self._span = stats.high - stats.low
        self._bounds = tuple(bounds)

    @staticmethod
    def of(contract: Contract, stats: ActionStats, place: int = 0) -> ActionCodec:
        """The codec of a checkpoint, for one dataset's statistics; `place` is the embodiment's."""
        return ActionCodec(
            stats,
            contract.horizons[place],
            contract.tensor_channels,
            contract.tensor_horizon,
            contract.embodiments[place].channels,
        )

    def mask(self, batch: int, steps: int | None = None) -> Tensor:
        """[B, H, K] bool: the first `steps` (default `H_task`) of the leading `c` channels."""
        mask = torch.zeros(batch, self.tensor_horizon, self.channels, dtype=torch.bool)
        mask[:, : self.horizon if steps is None else steps, : len(self._span)] = True
        return mask

    def encode(self, actions: NDArray[np.floating[Any]]) -> tuple[Tensor, Tensor]:
        """Normalize to the percentiles and clip to [-1, 1].

        Args:
            actions: [B, h, c] in simulator units, `h <= H_task`.

        Returns:
            `y0` [B, H, K] float32, zero where padded, and its mask [B, H, K] bool.

        Raises:
            ValueError: for another shape, a value that is not finite, or one that is not merely
                beyond the percentiles but far outside the channel's bounds (`action_range.FAR`).
        """
        if actions.ndim != 3 or actions.shape[2] != len(self._span):
            raise ValueError(f"actions must be [B, h, {len(self._span)}], not {actions.shape}")
        batch, steps, active = actions.shape
        if not 1 <= steps <= self.horizon:
            raise ValueError(f"{steps} action steps are not within 1..{self.horizon}")
        if not np.isfinite(actions).all():
            raise ValueError("actions contain NaN or infinity")
        if self._bounds:
            refuse_far(actions, self._bounds)
        # A channel whose quantiles coincide carries no information and maps to 0.
        span = np.where(self._span > 0, self._span, 1.0)
        unit = np.where(self._span > 0, 2.0 * (actions - self.stats.low) / span - 1.0, 0.0)
        encoded = torch.zeros(batch, self.tensor_horizon, self.channels)
        encoded[:, :steps, :active] = torch.from_numpy(np.clip(unit, -1.0, 1.0).astype(np.float32))
        return encoded, self.mask(batch, steps)

    def decode(self, encoded: Tensor) -> NDArray[np.float32]:
        """[B, H, K] -> [B, H_task, c] in simulator units, clipped to the percentiles.

        Raises:
            ValueError: for another shape or a value that is not finite.
        """
        if encoded.ndim != 3 or encoded.shape[1:] != (self.tensor_horizon, self.channels):
            raise ValueError(
                f"expected [B, {self.tensor_horizon}, {self.channels}], not {tuple(encoded.shape)}"
            )
        active = encoded[:, : self.horizon, : len(self._span)].detach().float().cpu().numpy()
        if not np.isfinite(active).all():
            raise ValueError("the policy produced NaN or infinity")
        unit = (np.clip(active, -1.0, 1.0) + 1.0) / 2.0
        return (self.stats.low + unit * self._span).astype(np.float32)
