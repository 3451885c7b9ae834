"""What a suite of slots checks of the requests it gets: slots and action chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def checked_slots(env_ids: NDArray[np.int64], num_envs: int) -> NDArray[np.int64]:
    """The slots [n] that a request names.

    Raises:
        ValueError: for one that is named twice or does not exist.
    """
    ids = np.asarray(env_ids, np.int64)
    if ids.ndim != 1 or len(np.unique(ids)) != len(ids):
        raise ValueError(f"env ids must be a list of distinct slots, got {ids.tolist()}")
    if len(ids) and (ids.min() < 0 or ids.max() >= num_envs):
        raise ValueError(f"env ids must be in [0, {num_envs}), got {ids.tolist()}")
    return ids


def checked_chunk(
    actions: NDArray[np.float32], ids: NDArray[np.int64], channels: int, running: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The action chunk [n, h, channels] of slots `ids` [n], of which `running` [n] play an episode.

    Raises:
        ValueError: for another shape, a number that is not finite, or a slot without an episode.
    """
    chunk = np.asarray(actions, np.float64)
    if chunk.ndim != 3 or chunk.shape[::2] != (len(ids), channels):
        raise ValueError(f"actions must be [{len(ids)}, h, {channels}], got {chunk.shape}")
    if chunk.shape[1] < 1:
        raise ValueError("a chunk needs at least one control step")
    finite = np.isfinite(chunk).all(axis=(1, 2))
    if not finite.all():
        raise ValueError(f"actions of environments {ids[~finite].tolist()} are not finite")
    if not running.all():
        raise ValueError(
            f"environments {ids[~running].tolist()} have no running episode: reset them"
        )
    return chunk


def checked_task(task: str, tasks: Sequence[str]) -> int:
    """The place of a task among the suite's.

    Raises:
        ValueError: if it has none of this name.
    """
    if task not in tasks:
        raise ValueError(f"unknown task {task!r}; this suite has {', '.join(tasks)}")
    return tasks.index(task)
