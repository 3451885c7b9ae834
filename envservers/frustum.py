"""What a camera cannot see is not drawn: MuJoCo sends every mesh to the renderer, wherever it is.

Software works on every vertex before it finds that it lies outside of the picture. A camera on the
wrist has most of the arm behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HIDDEN = 5
"""MuJoCo's last group of geometry, which is drawn only where somebody asks for it."""


def outside(model: Any, data: Any, camera: int) -> NDArray[np.bool_]:
    """[ngeom] what certainly lies outside of a camera's square picture, by its bounding sphere.

    Args:
        model: MuJoCo's, compiled.
        data: its state, with positions up to date.
        camera: number of a perspective camera.
    """
    slope = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    axes = data.cam_xmat[camera].reshape(3, 3)
    right, up, back = ((data.geom_xpos - data.cam_xpos[camera]) @ axes).T
    radius = model.geom_rbound
    # Beyond one of the four planes through the eye, or behind it.
    beyond = (np.maximum(np.abs(right), np.abs(up)) + back * slope) / np.sqrt(1 + slope**2)
    bounded = radius > 0  # an infinite plane has none
    found: NDArray[np.bool_] = bounded & ((beyond > radius) | (back > radius))
    return found


@contextmanager
def culled(model: Any, data: Any, camera: int) -> Iterator[None]:
    """While `mjv_updateScene` collects what to draw, what the camera cannot see is not found."""
    groups = model.geom_group.copy()
    model.geom_group[outside(model, data, camera)] = _HIDDEN
    try:
        yield
    finally:
        model.geom_group[:] = groups
