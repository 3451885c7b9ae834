"""What the car's camera sees, by casting rays: boxes by MuJoCo, the ground painted from the map."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envservers.driving.roads import LANE, Road, distance_to
from envservers.tabletop.renderer import look_at

FIELD_OF_VIEW, CAMERA_HEIGHT, CAMERA_AHEAD = 80.0, 1.5, 0.8
"""Degrees, and meters over the ground and before the car's center."""
_SKY = np.array([0.62, 0.74, 0.90])
_GRASS, _ASPHALT, _MARK = np.array([[0.30, 0.45, 0.22], [0.28, 0.28, 0.30], [0.92, 0.92, 0.90]])
_BOXES = 13
_FAR = 100.0


class RoadView:
    """Images of one road at a time, from poses of the car."""

    def __init__(self, size: int) -> None:
        """Square images, `size` pixels wide."""
        bodies = "".join(
            f'<body name="box{i}" mocap="true" pos="0 0 -50"><geom name="box{i}" type="box"'
            f' size="1 1 1"/></body>'
            for i in range(_BOXES)
        )
        text = f"<mujoco><worldbody>{bodies}</worldbody></mujoco>"
        self._model = mujoco.MjModel.from_xml_string(text)
        self._batch = Batch(self._model, 1, 1)
        self._mocap_pos = self._batch.bind("mocap_pos")
        self._mocap_quat = self._batch.bind("mocap_quat")
        names = ("geom_size", "geom_aabb", "geom_rbound", "bvh_aabb")
        self._fields = {name: self._batch.expand(name) for name in names}
        self.size = size
        half = np.tan(np.radians(FIELD_OF_VIEW) / 2)
        centers = ((np.arange(size) + 0.5) / size * 2 - 1) * half
        x, y = np.meshgrid(centers, -centers)
        rays = np.stack([x.ravel(), y.ravel(), -np.ones(x.size)], axis=1)
        self._rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        self._road: Road | None = None

    def show(self, road: Road) -> None:
        """Build up what stands on and beside this road.

        Raises:
            ValueError: if that is more than 13 boxes.
        """
        if len(road.boxes) > _BOXES:
            raise ValueError(f"{len(road.boxes)} boxes; at most {_BOXES} can be shown")
        self._road = road
        self._mocap_pos[0] = (0, 0, -50)
        for index, box in enumerate(road.boxes):
            half = np.array(box.size) / 2
            self._mocap_pos[0, index] = (*box.center, half[2])
            angle = box.heading / 2
            self._mocap_quat[0, index] = (np.cos(angle), 0, 0, np.sin(angle))
            self._fields["geom_size"][0, index] = half
            self._fields["geom_rbound"][0, index] = np.linalg.norm(half)
            self._fields["geom_aabb"][0, index, 3:] = half
        colors = [box.color for box in road.boxes]
        self._colors = np.array(colors).reshape(-1, 3)
        self._lines = tuple(simplified(line) for line in road.lines)
        self._batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)

    def render(self, pose: NDArray[np.float64]) -> NDArray[np.uint8]:
        """[size, size, 3] from the car at x, y, heading."""
        assert self._road is not None, "show a road first"
        forward = np.array([np.cos(pose[2]), np.sin(pose[2]), 0.0])
        eye = np.array([*pose[:2], CAMERA_HEIGHT]) + CAMERA_AHEAD * forward
        focus = eye + forward - [0, 0, 0.12]
        camera = look_at(eye[None], focus[None], np.array([0.0, 0.0, 1.0]))
        rays = self._rays @ camera.rotation[0].T
        distances, geoms, normals = self._batch.ray(eye[None, None], rays[None], normal=True)
        ground = np.where(
            rays[:, 2] < -1e-6, -CAMERA_HEIGHT / np.minimum(rays[:, 2], -1e-6), np.inf
        )
        colors = np.repeat(_SKY[None], len(rays), axis=0)
        on_ground = ground < _FAR
        hits = eye[:2] + rays[on_ground, :2] * ground[on_ground, None]
        colors[on_ground] = ground_colors(self._lines, self._road.width, hits)
        solid = (geoms[0] >= 0) & (distances[0] < np.minimum(ground, _FAR))
        light = 0.6 + 0.4 * np.maximum(normals[0][solid] @ np.array([0.4, 0.5, 0.77]), 0)
        colors[solid] = self._colors[geoms[0][solid]] * light[:, None]
        return (255 * colors).astype(np.uint8).reshape(self.size, self.size, 3)


def simplified(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """The line without the points between which it goes straight on, and half of the others."""
    piece = np.diff(line, axis=0)
    turn = piece[:-1, 0] * piece[1:, 1] - piece[:-1, 1] * piece[1:, 0]
    bends = np.flatnonzero(np.abs(turn) > 1e-9)[::2] + 1
    return line[np.unique([0, *bends, len(line) - 1])]


def ground_colors(
    lines: Sequence[NDArray[np.float64]], width: float, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[k, 3] what the ground looks like at points [k, 2]: grass, asphalt, markings."""
    colors = np.repeat(_GRASS[None], len(points), axis=0)
    nearby = [distance_to(line, points) for line in lines]
    colors[np.min(np.abs(nearby), axis=0) < width / 2] = _ASPHALT
    crossing = np.sum(np.abs(nearby) < width / 2 + 1.0, axis=0) > 1
    for away, line in zip(nearby, lines, strict=True):
        middle = np.abs(away) < 0.10
        along = points @ (line[-1] - line[0]) / np.linalg.norm(line[-1] - line[0])
        lanes = (np.abs(np.abs(away) - LANE) < 0.08) & (width > 3 * LANE) & (along % 6 < 3)
        edge = np.abs(np.abs(away) - (width / 2 - 0.25)) < 0.08
        colors[(middle | lanes | edge) & ~crossing] = _MARK
    return colors
