"""Whether the statistics that a dataset carries are those of its data.

Compared are count, minimum, maximum, mean and standard deviation of state and action. Quantiles are
not: LeRobot averages those of episodes. Nor images, which it samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.data.episode import STATS_PATH
from vlarl.data.lerobot_meta import DatasetMeta

LEGACY_STATS = "meta/episodes_stats.jsonl"
TOLERANCE = 1e-3
"""Of a channel's range: float32 sums of long recordings are not exact."""
_MEASURES = ("min", "max", "mean", "std")


def check_statistics(
    meta: DatasetMeta, vectors: Sequence[Mapping[str, NDArray[np.float32]]]
) -> Iterator[tuple[int | None, str]]:
    """What disagrees: the episode (None: the whole dataset) and how.

    Args:
        meta: of the dataset.
        vectors: feature -> [T, d], one mapping for each episode, in order.
    """
    if meta.is_legacy:
        yield from _check_legacy(meta, vectors)
        return
    path = meta.path / STATS_PATH
    stored = _parsed(path)
    if stored is None:
        yield None, f"{path} is missing or not valid JSON"
        return
    for key in vectors[0]:
        values = np.concatenate([each[key] for each in vectors])
        for words in _differences(stored.get(key), values):
            yield None, f"{path}: {key}: {words}"


def _check_legacy(
    meta: DatasetMeta, vectors: Sequence[Mapping[str, NDArray[np.float32]]]
) -> Iterator[tuple[int | None, str]]:
    path = meta.path / LEGACY_STATS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        rows = {row["episode_index"]: row["stats"] for row in map(json.loads, filter(None, lines))}
    except (ValueError, KeyError, TypeError):
        yield None, f"{path} is not valid"
        return
    for episode, each in enumerate(vectors):
        for key, values in each.items():
            for words in _differences(rows.get(episode, {}).get(key), values):
                yield episode, f"{path}: {key}: {words}"


def _differences(stored: Any, values: NDArray[np.float32]) -> Iterator[str]:
    if not isinstance(stored, dict):
        yield "no statistics"
        return
    exact = values.astype(np.float64)
    found = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    allowed = TOLERANCE * (found["max"] - found["min"]) + 1e-6 * np.abs(exact).max(0)
    for name in _MEASURES:
        said = np.asarray(stored.get(name, []), np.float64).ravel()
        if said.shape != found[name].shape:
            yield f"{name} has {len(said)} channels, the data {len(found[name])}"
            continue
        off = np.abs(said - found[name])
        for channel in np.flatnonzero(~(off <= allowed)).tolist():
            yield f"{name} of channel {channel} is {said[channel]:.6g}, of the data " + (
                f"{found[name][channel]:.6g}"
            )
    count = np.asarray(stored.get("count", len(values))).ravel()
    if count.tolist() != [len(values)]:
        yield f"count is {count.tolist()}, of the data {len(values)}"


def _parsed(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
