"""Images by casting rays: no OpenGL, no textures, no shadows. What every suite draws with.

Each pixel is one ray; a surface has its geom's color, lit by one directional light (Lambert) and an
ambient share. Image coordinates (u, v) are in [0, 1] from the left and top edges. Leaves out where
a suite's cameras are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

BACKGROUND = np.array([0.62, 0.70, 0.78], np.float32)
_VISIBLE_GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)


@dataclass(frozen=True)
class CameraPose:
    """Where n cameras are: `position` [n, 3], `rotation` [n, 3, 3] (right, up, backwards)."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]


def look_at(
    position: NDArray[np.float64], focus: NDArray[np.float64], up: NDArray[np.float64]
) -> CameraPose:
    """Cameras at `position` [n, 3] that look at `focus` [n, 3], with `up` [3] upwards."""
    backwards = position - focus
    backwards = backwards / np.linalg.norm(backwards, axis=-1, keepdims=True)
    right = np.cross(up, backwards)
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    above = np.cross(backwards, right)
    return CameraPose(position, np.stack([right, above, backwards], axis=-1))


def project(
    points: NDArray[np.float64], pose: CameraPose, field_of_view: float
) -> NDArray[np.float64]:
    """Image coordinates [n, k, 2] of world points [n, k, 3]; outside [0, 1] if out of view.

    A point behind the camera has no image: its coordinates are NaN.
    """
    local = np.einsum("nki,nij->nkj", points - pose.position[:, None], pose.rotation)
    depth = np.where(local[..., 2] < 0, -local[..., 2], np.nan)
    scale = 2 * np.tan(np.radians(field_of_view) / 2)
    return np.stack(
        [0.5 + local[..., 0] / (depth * scale), 0.5 - local[..., 1] / (depth * scale)], axis=-1
    )


class RayCaster:
    """Images of chosen simulations of a batch; looks (colors, light) are set for each of them."""

    def __init__(
        self, batch: Batch, model: mujoco.MjModel, size: int, fields_of_view: Mapping[str, float]
    ) -> None:
        """Precompute the rays of square images, `size` pixels wide, for each camera's degrees."""
        self._batch, self.size = batch, size
        self.colors = np.zeros((batch.nsim, model.ngeom + 1, 3), np.float32)
        """[sims, geoms + 1, 3]; the last row is what a ray sees that hits nothing."""
        self.colors[:, -1] = BACKGROUND
        self.light = np.zeros((batch.nsim, 5), np.float32)
        """[sims, 5]: direction towards the light, ambient and diffuse share."""
        self.rays = {name: self._pixel_rays(angle) for name, angle in fields_of_view.items()}
        """camera -> [pixels, 3] unit directions in its own frame."""
        self.seconds = 0.0
        """Spent drawing so far."""

    def _pixel_rays(self, field_of_view: float) -> NDArray[np.float64]:
        """[pixels, 3] unit directions in the camera's frame, row by row from the top left."""
        centers = ((np.arange(self.size) + 0.5) / self.size * 2 - 1) * np.tan(
            np.radians(field_of_view) / 2
        )
        x, y = np.meshgrid(centers, -centers)
        rays = np.stack([x.ravel(), y.ravel(), -np.ones(x.size)], axis=1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def draw(
        self, ids: NDArray[np.int64], pose: CameraPose, camera: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """What `camera`, standing at `pose`, sees in simulations `ids` (ascending).

        Returns:
            Images [n, size, size, 3], and the geom [n, size, size] that each pixel shows (-1:
            none).
        """
        started = time.perf_counter()
        rays = self.rays[camera] @ pose.rotation.transpose(0, 2, 1)
        _, geoms, normals = self._batch.ray(
            pose.position[:, None], rays, _VISIBLE_GROUPS, ids=ids, normal=True
        )
        images = np.empty((len(ids), self.size * self.size, 3), np.uint8)
        for row, sim in enumerate(ids):
            towards, ambient, diffuse = self.light[sim, :3], self.light[sim, 3], self.light[sim, 4]
            shade = ambient + diffuse * np.maximum(normals[row].astype(np.float32) @ towards, 0)
            lit = self.colors[sim][geoms[row]] * (255 * np.minimum(shade, 1.0))[:, None]
            images[row] = lit
        self.seconds += time.perf_counter() - started
        square = (len(ids), self.size, self.size)
        return images.reshape(*square, 3), geoms.reshape(square)
