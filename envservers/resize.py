"""Pictures of another size, with NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Means of what falls into each pixel where it becomes smaller, nearest pixels otherwise.

    Args:
        image: [rows, columns, 3].
        height: of the result.
        width: of the result.

    Returns:
        [height, width, 3].
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    row_index = (np.arange(height) * rows) // height
    column_index = (np.arange(width) * columns) // width
    if rows < height or columns < width:
        return image[row_index[:, None], column_index[None, :]]
    sums = np.add.reduceat(image.astype(np.float64), row_index, axis=0)
    sums = np.add.reduceat(sums, column_index, axis=1)
    counts = np.outer(np.diff(row_index, append=rows), np.diff(column_index, append=columns))
    return np.rint(sums / counts[..., None]).astype(np.uint8)
