"""Many tables that differ in objects, sizes, colors, light and controller; no tasks, no episodes.

The suite's model, control and cameras, laid with `Layout`s: fields of the model that a layout
changes have a value for each simulation. What becomes of the motions is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envservers.tabletop.control import ArmControl, yaw_of
from envservers.tabletop.facts import Facts
from envservers.tabletop.layouts import Layout, Pattern
from envservers.tabletop.renderer import Renderer
from envservers.tabletop.sampling import geom_color_keys
from envservers.tabletop.scene import (
    ARM_JOINTS,
    FINGER_OPEN,
    FIXED,
    MOVABLE,
    OBJECTS,
    arm_configuration,
    build_model,
)

_SETTLE_STEPS = 60
_MOVED, _TILTED = 0.006, 0.97
"""Meters, and cosine: a table on which something moves or tilts more while settling is refused."""
_BY_SCALE = ("geom_size", "geom_pos", "geom_rbound", "geom_aabb", "bvh_aabb", "body_ipos")
_FIELDS = (
    *_BY_SCALE, "body_mass", "body_inertia", "geom_friction", "actuator_gainprm",
    "actuator_biasprm",
)  # fmt: skip
_OUT_OF_SIGHT = 3.0
"""Meters behind the camera, where the collision plane goes on but nothing is drawn."""


class Workbench:
    """`num_envs` tables; slots are numbered from 0, and ids are given in ascending order.

    Attributes:
        layouts: of each slot, once laid.
    """

    def __init__(self, num_envs: int, image_size: int, threads: int = 1) -> None:
        """Compile the model and allocate the slots."""
        # MuJoCo would print each warning and write MUJOCO_LOG.TXT; `failed` reads them.
        mujoco.set_mju_user_warning(lambda message: None)
        self.num_envs = num_envs
        self.model = build_model()
        self._batch = Batch(self.model, num_envs, threads)
        self.control = ArmControl(self._batch, self.model)
        self.renderer = Renderer(self._batch, self.model, image_size)
        self.layouts: list[Layout | None] = [None] * num_envs
        self._color_keys = geom_color_keys(self.model)
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._ctrl = self._batch.bind("ctrl")
        self._mocap_pos = self._batch.bind("mocap_pos")
        self._mocap_quat = self._batch.bind("mocap_quat")
        self._xpos, self._xmat = self._batch.bind("xpos"), self._batch.bind("xmat")
        self._expanded = {name: self._batch.expand(name) for name in _FIELDS}
        self._bodies = {name: self.model.body(name).id for name in OBJECTS}
        of_body = {body: name for name, body in self._bodies.items()}
        self.owner = [of_body.get(int(body), "") for body in self.model.geom_bodyid]
        """[geoms] the object each belongs to, or empty."""
        self._table = self.model.geom("table").id

    def lay(self, ids: NDArray[np.int64], layouts: Sequence[Layout]) -> list[str]:
        """Put these tables up and let them settle.

        Returns:
            [n] what is physically wrong with each; empty: it is a valid table.
        """
        self._batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._batch.warning[ids] = 0
        for sim, layout in zip(ids, layouts, strict=True):
            self.layouts[sim] = layout
            self._scale(sim, layout)
            self._place(sim, layout)
            self._look(sim, layout)
        self._batch.set_const(ids)
        self._batch.forward(ids, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        before = self._xpos[ids].copy()
        self._batch.step(ids, _SETTLE_STEPS, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        return [self._defect(sim, start) for sim, start in zip(ids, before, strict=True)]

    def _scale(self, sim: int, layout: Layout) -> None:
        """Sizes, masses, friction and gains of one slot, from the model's."""
        fields = self._expanded
        for name, values in fields.items():
            values[sim] = getattr(self.model, name).reshape(values.shape[1:])
        for thing, body in self._bodies.items():
            scale = layout.scale[thing]
            first, count = int(self.model.body_geomadr[body]), int(self.model.body_geomnum[body])
            geoms = slice(first, first + count)
            tree = int(self.model.body_bvhadr[body])
            nodes = slice(tree, tree + int(self.model.body_bvhnum[body]))
            rows = {"bvh_aabb": nodes, "body_ipos": slice(body, body + 1)}
            for name in _BY_SCALE:
                fields[name][sim, rows.get(name, geoms)] *= scale
            mass = scale**3 * layout.density.get(thing, 1.0)
            fields["body_mass"][sim, body] *= mass
            fields["body_inertia"][sim, body] *= mass * scale**2
            fields["geom_friction"][sim, geoms] *= layout.friction
        arm, controller = slice(0, len(ARM_JOINTS)), layout.controller
        fields["actuator_gainprm"][sim, arm, 0] *= controller.stiffness
        fields["actuator_biasprm"][sim, arm, 1] *= controller.stiffness
        fields["actuator_biasprm"][sim, arm, 2] *= controller.damping

    def _place(self, sim: int, layout: Layout) -> None:
        self._qpos[sim, :6] = self._ctrl[sim, :6] = arm_configuration(layout.tool)
        self._qpos[sim, 6:8] = self._ctrl[sim, 6:8] = FINGER_OPEN
        self.control.target[sim] = layout.tool
        for number, name in enumerate(OBJECTS):
            away = (_OUT_OF_SIGHT, 0.3 * number, 0.0)
            x, y, yaw = layout.poses.get(name, away)
            z = layout.half_height(name)
            below = layout.stacked.get(name)
            if below == "basket":
                z += 0.004 * layout.scale["basket"]
            elif below is not None:
                z += 2 * layout.half_height(below)
            quaternion = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
            if name in FIXED:
                mocap = int(self.model.body_mocapid[self._bodies[name]])
                self._mocap_pos[sim, mocap] = (x, y, z)
                self._mocap_quat[sim, mocap] = quaternion
            else:
                at = self._joint(name, self.model.jnt_qposadr)
                self._qpos[sim, at : at + 7] = (x, y, z, *quaternion)

    def _joint(self, name: str, addresses: NDArray[np.int32]) -> int:
        return int(addresses[self.model.body_jntadr[self._bodies[name]]])

    def _look(self, sim: int, layout: Layout) -> None:
        colors = [layout.geom_colors[key] for key in self._color_keys]
        self.renderer.colors[sim, :-1] = colors
        self.renderer.colors[sim, -1] = layout.background
        self.renderer.light[sim] = layout.light
        self.renderer.ego_jitter[sim] = layout.camera

    def _defect(self, sim: int, before: NDArray[np.float64]) -> str:
        layout = self._layout(sim)
        if self.failed(sim):
            return "unstable physics"
        for name in MOVABLE:
            if name not in layout.present:
                continue
            body = self._bodies[name]
            if np.linalg.norm(self._xpos[sim, body] - before[body]) > _MOVED:
                return "an object moved while settling"
            if self._xmat[sim, body].reshape(3, 3)[2, 2] < _TILTED:
                return "an object tilted while settling"
        return ""

    def failed(self, sim: int) -> bool:
        """Whether the physics of a slot has diverged or overflowed since it was laid."""
        warned = (self._batch.warning[sim, :, 1] > 0).any()
        return bool(warned or not np.isfinite(self._qpos[sim]).all())

    def step(self, ids: NDArray[np.int64], actions: NDArray[np.float64]) -> None:
        """One control step of slots `ids` under `actions` [n, 5], as the suite takes them."""
        self.control.step(ids, actions)

    def facts(self, sim: int) -> Facts:
        """What is true of one table now."""
        layout = self._layout(sim)
        positions, yaws, speeds = {}, {}, {}
        for name in layout.present:
            body = self._bodies[name]
            if name in FIXED:
                mocap = int(self.model.body_mocapid[body])
                positions[name] = self._mocap_pos[sim, mocap].copy()
                yaws[name], speeds[name] = float(yaw_of(self._mocap_quat[sim, mocap])), 0.0
                continue
            at = self._joint(name, self.model.jnt_qposadr)
            positions[name] = self._qpos[sim, at : at + 3].copy()
            yaws[name] = float(yaw_of(self._qpos[sim, at + 3 : at + 7]))
            velocity = self._joint(name, self.model.jnt_dofadr)
            speeds[name] = float(np.linalg.norm(self._qvel[sim, velocity : velocity + 3]))
        one = np.array([sim])
        tool, opening = self.control.pose(one)[0], float(self._qpos[sim, 6:8].sum())
        return Facts(layout, positions, yaws, speeds, tool, opening)

    def state(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, 11] proprioception, as the suite's: joints, opening, tool x, y, z, yaw."""
        opening = self._qpos[ids, 6:8].sum(axis=1, keepdims=True)
        parts = [self._qpos[ids, :6], opening, self.control.pose(ids)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def render(
        self, ids: NDArray[np.int64], camera: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Images [n, size, size, 3] and the geom [n, size, size] of each pixel (-1: none)."""
        images, geoms = self.renderer.render_with_segmentation(ids, camera)
        pose = self.renderer.camera_pose(ids, camera)
        for row, sim in enumerate(ids):
            layout = self._layout(sim)
            on_table = geoms[row].ravel() == self._table
            rays = self.renderer.rays[camera][on_table] @ pose.rotation[row].T
            origin = pose.position[row]
            hits = origin[:2] - rays[:, :2] * (origin[2] / rays[:, 2:])
            pixels = images[row].reshape(-1, 3)
            base = self.renderer.colors[sim, self._table]
            # The table is one plane: its pixels' light is what they show divided by its color.
            light = pixels[on_table] / np.maximum(255 * base, 1e-3)
            pattern = layout.pattern
            mixed = np.where(painted(pattern, hits)[:, None], pattern.color, base)
            low, high = layout.edges
            beyond = ((hits < low) | (hits > high)).any(axis=1)
            mixed[beyond] = layout.background
            pixels[on_table] = np.clip(255 * light * mixed, 0, 255)
        return images, geoms

    def _layout(self, sim: int) -> Layout:
        layout = self.layouts[sim]
        assert layout is not None, f"slot {sim} was never laid"
        return layout


def painted(pattern: Pattern, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n] which points [n, 2] of the table have the pattern's color instead of the table's."""
    cosine, sine = np.cos(pattern.angle), np.sin(pattern.angle)
    u = (points @ [cosine, sine]) / pattern.pitch
    v = (points @ [-sine, cosine]) / pattern.pitch
    if pattern.kind == "plain":
        return np.zeros(len(points), np.bool_)
    if pattern.kind == "checker":
        return (np.floor(u) + np.floor(v)) % 2 == 0
    if pattern.kind == "stripes":
        return np.floor(u) % 2 == 0
    if pattern.kind == "planks":
        return (u % 1 < 0.06) | ((v / 4 + np.floor(u) * 0.37) % 1 < 0.015)
    # Speckle: a hash of the cell decides.
    cells = np.floor(np.stack([u, v], axis=1) * 5).astype(np.int64)
    return (cells[:, 0] * 73856093 ^ cells[:, 1] * 19349663) % 7 < 2
