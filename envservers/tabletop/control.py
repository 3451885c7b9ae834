"""How commanded tool poses become joint motion: damped differential inverse kinematics.

The tool always points down; a target pose (x, y, z, yaw) is integrated from the actions and kept
near the measured pose, so that pushing against something never winds up a large force.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envservers.tabletop.scene import FINGER_CLOSED, FINGER_OPEN

PIECE = 2
"""Physics steps of 0.01 s between two updates of the joint targets."""
RAMP = ((0.55, (0.25, 0.5, 0.75, 1.0)), (1.0, (0.3, 0.6, 0.9, 1.0, 1.0, 1.0)))
"""A control step: for each solution of the inverse kinematics, the share of the commanded motion
it aims at, and how far towards it the joint targets are after each piece. A jump of the whole
motion at once would shake a held object out of the fingers."""
SUBSTEPS = PIECE * sum(len(pieces) for _, pieces in RAMP)
TARGET_LOW = np.array([0.12, -0.30, 0.012, -1.4])
TARGET_HIGH = np.array([0.56, 0.30, 0.30, 1.4])
"""Box of commanded poses; its floor keeps the fingertips 2 mm above the table."""
MAX_LEAD = np.array([0.06, 0.06, 0.06, 0.4])
"""How far the commanded pose may be ahead of the measured one."""
ACTION_LOW = np.array([-0.05, -0.05, -0.05, -0.3, -1.0])
ACTION_HIGH = -ACTION_LOW
_DAMPING = 1e-4
_POSITION = mujoco.mjtStage.mjSTAGE_POS.value
_NOTHING = mujoco.mjtStage.mjSTAGE_NONE.value


def tool_pose(position: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 4] x, y, z, yaw of tool sites at `position` [n, 3] with `rotation` [n, 9]."""
    yaw = np.arctan2(rotation[:, 5], rotation[:, 2])
    return np.concatenate([position, yaw[:, None]], axis=1)


def yaw_of(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """[...] rotation about z of quaternions [..., 4] (w, x, y, z)."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def turned(actions: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    """[n, c] the actions with their first two channels, a motion in the plane, turned by `yaw`."""
    x, y = actions[:, 0], actions[:, 1]
    cosine, sine = np.cos(yaw), np.sin(yaw)
    plane = np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)
    return np.concatenate([plane, actions[:, 2:]], axis=1)


def _rotation_error(rotation: NDArray[np.float64], yaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 3] world rotation vector from `rotation` [n, 9] to "down, at `yaw`" (small angles)."""
    zero = np.zeros_like(yaw)
    cosine, sine = np.cos(yaw), np.sin(yaw)
    columns = (
        np.stack([zero, zero, zero - 1.0], 1),
        np.stack([-sine, cosine, zero], 1),
        np.stack([cosine, sine, zero], 1),
    )
    matrix = rotation.reshape(-1, 3, 3)
    return 0.5 * np.sum([np.cross(matrix[:, :, k], columns[k]) for k in range(3)], axis=0)


class ArmControl:
    """Drives the arms of a batch; owns the commanded poses `target` [sims, 4]."""

    def __init__(self, batch: Batch, model: mujoco.MjModel) -> None:
        """Bind the fields of `batch` that the control law reads and writes."""
        self._batch = batch
        self._hand = model.body("hand").id
        self._tool = model.site("tool").id
        self._position, self._rotation = batch.bind("site_xpos"), batch.bind("site_xmat")
        self._qpos, self._ctrl = batch.bind("qpos"), batch.bind("ctrl")
        self.target = np.zeros((batch.nsim, 4))

    def pose(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """[n, 4] measured x, y, z and yaw of the tool."""
        return tool_pose(
            self._position[ids, self._tool], self._rotation[ids, self._tool].reshape(-1, 9)
        )

    def step(self, ids: NDArray[np.int64], actions: NDArray[np.float64]) -> None:
        """Advance sims `ids` (ascending) by one control step under `actions` [n, 5]."""
        actions = np.clip(actions, ACTION_LOW, ACTION_HIGH)
        measured = self.pose(ids)
        target = np.clip(self.target[ids] + actions[:, :4], TARGET_LOW, TARGET_HIGH)
        target = measured + np.clip(target - measured, -MAX_LEAD, MAX_LEAD)
        self.target[ids] = target
        finger = FINGER_CLOSED + (actions[:, 4] + 1) / 2 * (FINGER_OPEN - FINGER_CLOSED)
        self._ctrl[ids, 6:8] = finger[:, None]
        for share, pieces in RAMP:
            start = self._ctrl[ids, :6]
            motion = self._solve(ids, measured + share * (target - measured)) - start
            for index, fraction in enumerate(pieces):
                self._ctrl[ids, :6] = start + fraction * motion
                stage = _POSITION if index == len(pieces) - 1 else _NOTHING
                self._batch.step(ids, PIECE, stage=stage)

    def _solve(self, ids: NDArray[np.int64], target: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, 6] joint targets that move the measured tool pose onto `target` [n, 4]."""
        position = self._position[ids, self._tool]
        translation, rotation = self._batch.jac(self._hand, position, ids)
        jacobian = np.concatenate([translation[:, :, :6], rotation[:, :, :6]], axis=1)
        matrix = self._rotation[ids, self._tool].reshape(-1, 9)
        error = np.concatenate(
            [target[:, :3] - position, _rotation_error(matrix, target[:, 3])], axis=1
        )
        gram = jacobian @ jacobian.transpose(0, 2, 1) + _DAMPING * np.eye(6)
        motion = jacobian.transpose(0, 2, 1) @ np.linalg.solve(gram, error[:, :, None])
        return self._qpos[ids, :6] + motion[:, :, 0]
