"""Statistics of every channel of a dataset's actions and state, in one pass, without images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.data.episode import ACTION, STATE
from vlarl.data.exact_quantiles import ExactQuantiles
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError

LEVELS = (0.01, 0.99)
"""Of the paper's normalization (eq. 5)."""


def channel_stats(reader: LeRobotReader, levels: Sequence[float] = LEVELS) -> dict[str, Any]:
    """Feature -> channel name -> `min`, `max`, `mean`, `std` and `q<level>` of all its frames.

    Takes, beside one episode, at most `8 * d * N * share` bytes, where `share` is the part of the
    `N` values at or beyond the quantiles: 0.02 for 1% and 99%.

    Raises:
        UserError: for an unreadable file, or a value that is not finite.
        ValueError: for a level outside [0, 1].
    """
    count = reader.meta.total_frames
    columns = {ACTION: _Column(count, levels), STATE: _Column(count, levels)}
    for row in reader.episodes:
        numbers = reader.numbers(row.index)
        for key, values in ((ACTION, numbers.action), (STATE, numbers.state)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                raise UserError(
                    f"{row.file}: {key} of episode {row.index}, frame {bad[0]} is not finite; "
                    "`vlarl data validate` lists every such frame"
                )
            columns[key].add(values)
    names = {ACTION: reader.action_names, STATE: reader.meta.names(STATE)}
    return {key: column.summary(names[key]) for key, column in columns.items() if column.width}


class _Column:
    """Sums and tails of one feature."""

    def __init__(self, count: int, levels: Sequence[float]) -> None:
        self._count, self._levels, self.width = count, levels, 0
        self._quantiles = ExactQuantiles(count, levels)

    def add(self, values: NDArray[np.float32]) -> None:
        exact = values.astype(np.float64)
        if not self.width:
            # Sums of differences from a typical value: squares of large ones lose the digits.
            self.width, self._origin = values.shape[1], exact.mean(0)
            self._low, self._high = exact.min(0), exact.max(0)
            self._sum = self._squares = np.zeros(self.width)
        self._low = np.minimum(self._low, exact.min(0))
        self._high = np.maximum(self._high, exact.max(0))
        self._sum = self._sum + (exact - self._origin).sum(0)
        self._squares = self._squares + ((exact - self._origin) ** 2).sum(0)
        self._quantiles.add(values)

    def summary(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        shift = self._sum / self._count
        variance = np.maximum(self._squares / self._count - shift**2, 0.0)
        found = {
            "min": self._low,
            "max": self._high,
            "mean": self._origin + shift,
            "std": np.sqrt(variance),
        }
        quantiles = self._quantiles.result()
        found |= {f"q{level:g}": q for level, q in zip(self._levels, quantiles, strict=True)}
        labels = names or [str(channel) for channel in range(self.width)]
        return {
            label: {name: float(values[channel]) for name, values in found.items()}
            for channel, label in enumerate(labels)
        }
