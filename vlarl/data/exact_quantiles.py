"""Exact quantiles of columns of known length in one streaming pass.

A quantile is an order statistic, or lies between two: the 1st percentile of `N` values needs the
`N / 100 + 2` smallest and none of the others. So each level keeps the tail that holds it: for 1%
and 99%, 2% of the values, at most 4% while it works. For the median, half of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class ExactQuantiles:
    """Of each of `d` channels, over `N` rows that come in blocks."""

    def __init__(self, count: int, levels: Sequence[float]) -> None:
        """`count` is `N`; `levels` lie in [0, 1].

        Raises:
            ValueError: for no rows or a level outside.
        """
        if count < 1 or not all(0 <= level <= 1 for level in levels):
            raise ValueError(f"quantiles {tuple(levels)} of {count} values: levels lie in [0, 1]")
        self._count, self._levels = count, tuple(levels)
        low = [level for level in levels if level <= 0.5]
        high = [level for level in levels if level > 0.5]
        # The order statistics on both sides of a level, counted from its own end.
        self._low = _Tail(max((self._place(x)[1] + 1 for x in low), default=0))
        self._high = _Tail(max((count - self._place(x)[0] for x in high), default=0))
        self._seen = 0

    def _place(self, level: float) -> tuple[int, int, float]:
        """Order statistics below and above a level, and how far it is between them."""
        exact = level * (self._count - 1)
        below = math.floor(exact)
        return below, min(below + 1, self._count - 1), exact - below

    @property
    def held(self) -> int:
        """Values of each channel that are kept now."""
        return len(self._low) + len(self._high)

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in a block [n, d], all finite."""
        self._seen += len(values)
        self._low.add(values)
        self._high.add(-values)

    def result(self) -> NDArray[np.float64]:
        """[levels, d], as `numpy.quantile` has them (linear between order statistics).

        Raises:
            ValueError: if other than `N` rows came.
        """
        if self._seen != self._count:
            raise ValueError(f"{self._seen} rows came, {self._count} were announced")
        low, high = self._low.sorted(), -self._high.sorted()[::-1]
        offset = self._count - len(high)
        rows = []
        for level in self._levels:
            below, above, part = self._place(level)
            one, other = (
                (low[below], low[above])
                if level <= 0.5
                else (
                    high[below - offset],
                    high[above - offset],
                )
            )
            # Either way round, as numpy does it, so that both ends are met exactly.
            gap = other - one
            rows.append(one + gap * part if part < 0.5 else other - gap * (1 - part))
        return np.stack(rows)


class _Tail:
    """The `size` smallest of each channel."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._blocks: list[NDArray[np.float32]] = []
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def add(self, values: NDArray[np.float32]) -> None:
        if self._size == 0:
            return
        self._blocks.append(values)
        self._held += len(values)
        if self._held > 2 * self._size:
            self._prune()

    def _prune(self) -> None:
        together = np.concatenate(self._blocks)
        if len(together) > self._size:
            together = np.partition(together, self._size - 1, axis=0)[: self._size].copy()
        self._blocks, self._held = [together], len(together)

    def sorted(self) -> NDArray[np.float64]:
        """[size, d], smallest first; [0, 0] if nothing is kept."""
        if self._size == 0:
            return np.zeros((0, 0))
        self._prune()
        return np.sort(self._blocks[0].astype(np.float64), axis=0)
