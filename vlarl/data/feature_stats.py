"""Statistics of a dataset's columns for LeRobot's `stats.json`, gathered episode by episode.

Exact for vectors (all values are kept) and for images (256-bin histograms). The action percentiles
that the model's codec uses are computed by `vlarl.codec.fit_action_stats`, not here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUANTILES: dict[str, float] = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


class VectorStats:
    """Of a column of vectors [T, d]."""

    def __init__(self) -> None:
        self._values: list[NDArray[np.floating[Any]]] = []

    def add(self, values: NDArray[np.floating[Any]]) -> None:
        """Take in one episode's [T, d]."""
        self._values.append(values)

    def to_dict(self) -> dict[str, list[Any]]:
        """Each statistic as a list of `d` numbers, and `count`."""
        values = np.concatenate(self._values).astype(np.float64)
        found = {
            "min": values.min(0),
            "max": values.max(0),
            "mean": values.mean(0),
            "std": values.std(0),
        }
        for name, level in _QUANTILES.items():
            found[name] = np.quantile(values, level, axis=0)
        return {name: value.tolist() for name, value in found.items()} | {"count": [len(values)]}


class ImageStats:
    """Of a column of images [T, height, width, 3]; values are reported in [0, 1]."""

    def __init__(self) -> None:
        self._bins = np.zeros((3, 256), np.int64)
        self._frames = 0

    def add(self, images: NDArray[np.uint8]) -> None:
        """Take in one episode's images."""
        for channel in range(3):
            self._bins[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
        self._frames += len(images)

    def to_dict(self) -> dict[str, list[Any]]:
        """Each statistic shaped [3, 1, 1] as LeRobot has it, and `count` of frames."""
        levels = np.arange(256) / 255.0
        total = self._bins.sum(1)
        mean = self._bins @ levels / total
        seen = self._bins > 0
        found = {
            "min": levels[seen.argmax(1)],
            "max": levels[255 - seen[:, ::-1].argmax(1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(self._bins @ levels**2 / total - mean**2, 0.0)),
        }
        cumulative = self._bins.cumsum(1) / total[:, None]
        for name, level in _QUANTILES.items():
            found[name] = levels[(cumulative >= level).argmax(1)]
        shaped = {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}
        return shaped | {"count": [self._frames]}
