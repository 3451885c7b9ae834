"""Cameras of the tabletop suite: where they are and what they see."""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envservers.raycaster import CameraPose, RayCaster, look_at

CAMERAS: tuple[str, ...] = ("ego", "cam_right_wrist")
FIELD_OF_VIEW: dict[str, float] = {"ego": 36.0, "cam_right_wrist": 75.0}
"""Degrees, across the full height and width of the (square) image."""
EGO_POSITION, EGO_FOCUS = np.array([0.74, 0.0, 0.80]), np.array([0.325, 0.0, 0.0])
WRIST_POSITION, WRIST_FOCUS = np.array([0.095, 0.0, 0.075]), np.array([0.19, 0.0, 0.02])
"""In the hand's frame, whose x axis points to the fingertips and z axis away from the base."""


class Renderer(RayCaster):
    """Both cameras' images of chosen simulations."""

    def __init__(self, batch: Batch, model: mujoco.MjModel, size: int) -> None:
        """Square images, `size` pixels wide."""
        super().__init__(batch, model, size, FIELD_OF_VIEW)
        self._hand = model.body("hand").id
        self._xpos, self._xmat = batch.bind("xpos"), batch.bind("xmat")
        self.ego_jitter = np.zeros((batch.nsim, 6))

    def camera_pose(self, ids: NDArray[np.int64], camera: str) -> CameraPose:
        """Poses of `camera` in simulations `ids`.

        Raises:
            ValueError: for an unknown camera.
        """
        if camera == "ego":
            jitter = self.ego_jitter[ids]
            return look_at(
                EGO_POSITION + jitter[:, :3], EGO_FOCUS + jitter[:, 3:], np.array([0.0, 0.0, 1.0])
            )
        if camera == "cam_right_wrist":
            origin, rotation = self._xpos[ids, self._hand], self._xmat[ids, self._hand]
            rotation = rotation.reshape(-1, 3, 3)
            local = look_at(WRIST_POSITION[None], WRIST_FOCUS[None], np.array([0.0, 0.0, 1.0]))
            return CameraPose(origin + rotation @ WRIST_POSITION, rotation @ local.rotation)
        raise ValueError(f"unknown camera {camera!r}; known: {', '.join(CAMERAS)}")

    def render(self, ids: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Images [n, size, size, 3] of simulations `ids` (ascending)."""
        return self.render_with_segmentation(ids, camera)[0]

    def render_with_segmentation(
        self, ids: NDArray[np.int64], camera: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Images as `render`, and the geom [n, size, size] that each pixel shows (-1: none)."""
        return self.draw(ids, self.camera_pose(ids, camera), camera)
