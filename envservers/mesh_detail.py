"""Fewer triangles where a picture has no pixels for them: vertices of a grid's cell become one.

Software draws every triangle, whatever the size of the picture, and simulators' meshes have tens of
thousands. What is changed is what a drawing context uploads: MuJoCo collides with convex hulls, and
took masses from the meshes when the model was compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_CELLS = 32
"""Enough for pictures of up to a few hundred pixels."""


def cells_for(size: int) -> int:
    """Of `coarser`, for pictures of `size` pixels; in the small ones objects have a few pixels."""
    return min(_MOST_CELLS, max(_MOST_CELLS // 2, 3 * size // 8))


@contextmanager
def coarser(model: Any, cells: int) -> Iterator[None]:
    """While a drawing context of the model is made, its meshes have less detail; then all of it.

    Args:
        model: MuJoCo's, compiled.
        cells: of the grid, along the longest side of each mesh.
    """
    arrays = ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum")
    before = {name: getattr(model, name).copy() for name in arrays}
    try:
        for mesh in range(model.nmesh):
            start, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
            first = int(model.mesh_vertadr[mesh])
            points = model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])]
            faces = model.mesh_face[start : start + count]
            merged, kept = merge(points, faces, cells)
            for name in ("mesh_facenormal", "mesh_facetexcoord"):
                corners = getattr(model, name)
                corners[start : start + len(kept)] = before[name][start : start + count][kept]
            model.mesh_face[start : start + len(kept)] = merged
            model.mesh_facenum[mesh] = len(kept)
        yield
    finally:
        for name, values in before.items():
            getattr(model, name)[:] = values


def merge(
    points: NDArray[np.floating[Any]], faces: NDArray[np.integer[Any]], cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles between one point of each cell.

    A bar that is thinner than a cell would vanish, all its triangles being in one cell or two; what
    would leave a cell without any stays as it is.

    Args:
        points: [n, 3].
        faces: [m, 3] indices of points.
        cells: along the longest side of the points' box.

    Returns:
        [k, 3] indices of points, and [k] which of the faces they were.
    """
    which = _cells(points, cells)
    stands_for = _most_central(points, which)
    merged = _distinct(stands_for[faces])[0]
    bare = np.ones(which.max() + 1, np.bool_)
    bare[which[merged]] = False
    stands_for = np.where(bare[which], np.arange(len(points)), stands_for)
    return _distinct(stands_for[faces])


def _cells(points: NDArray[np.floating[Any]], cells: int) -> NDArray[np.int64]:
    """[n] the number of each point's cell, without gaps."""
    low, high = points.min(axis=0), points.max(axis=0)
    edge = max(float((high - low).max()) / cells, 1e-12)
    place = np.floor((points - low) / edge).astype(np.int64)
    key = (place[:, 0] * (cells + 2) + place[:, 1]) * (cells + 2) + place[:, 2]
    found: NDArray[np.int64] = np.unique(key, return_inverse=True)[1].reshape(-1)
    return found


def _most_central(points: NDArray[np.floating[Any]], which: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] of the points in its cell the one nearest to their mean: outlines stay where they are."""
    size = np.bincount(which)
    middle = np.stack([np.bincount(which, points[:, axis]) / size for axis in range(3)], axis=1)
    order = np.lexsort((np.linalg.norm(points - middle[which], axis=1), which))
    found: NDArray[np.int64] = order[np.searchsorted(which[order], np.arange(len(size)))][which]
    return found


def _distinct(faces: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The triangles with three corners, each once, and which they were."""
    one, two, three = faces.T
    whole = np.flatnonzero((one != two) & (two != three) & (three != one))
    kept = whole[np.sort(np.unique(np.sort(faces[whole], axis=1), axis=0, return_index=True)[1])]
    return faces[kept], kept
