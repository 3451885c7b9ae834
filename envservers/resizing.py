"""Pictures made smaller, where a simulator draws one size only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """[height, width, c] of `image` [rows, columns, c]: the mean of what each new pixel covers."""
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    down = np.tensordot(_shares(rows, height), image.astype(np.float32), (1, 0))
    across = np.tensordot(down, _shares(columns, width), (1, 1)).swapaxes(1, 2)
    return np.rint(across).astype(np.uint8)


@lru_cache(maxsize=16)
def _shares(size: int, wanted: int) -> NDArray[np.float32]:
    """[wanted, size] how much each old pixel counts for each new one; rows add up to 1."""
    edges = np.arange(wanted + 1) * (size / wanted)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * (wanted / size)).astype(np.float32)
