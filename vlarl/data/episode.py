"""One demonstration, and the names that LeRobot v3.0 gives to its files and columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VERSION = "v3.0"
INFO_PATH, STATS_PATH, TASKS_PATH = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
STATE, ACTION, IMAGE_PREFIX = "observation.state", "action", "observation.images."
INDEX_COLUMNS: tuple[str, ...] = (
    "timestamp",
    "frame_index",
    "episode_index",
    "index",
    "task_index",
)
"""Columns that every dataset has beside its own features."""


@dataclass(frozen=True)
class Episode:
    """`T` frames: what was seen before each action, and the action.

    Raises:
        ValueError: if the arrays disagree about `T`, or there are no frames.
    """

    images: dict[str, NDArray[np.uint8]]
    """camera -> [T, height, width, 3], RGB."""
    state: NDArray[np.float32]
    """[T, d] proprioception, SI units."""
    action: NDArray[np.float32]
    """[T, c] simulator units; `action[t]` was executed on what `images[t]` shows."""
    instruction: str
    extra: dict[str, int | float | str | bool] = field(default_factory=dict)
    """Further columns of the episode's row, such as `seed`; the same keys in every episode."""

    def __post_init__(self) -> None:
        lengths = {name: len(frames) for name, frames in self.images.items()}
        lengths |= {STATE: len(self.state), ACTION: len(self.action)}
        if len(set(lengths.values())) != 1 or not len(self.action):
            raise ValueError(f"an episode needs as many images, states and actions: {lengths}")

    def __len__(self) -> int:
        return len(self.action)
