"""The arms: what their channels mean, and how ManiSkill's controllers want it told.

Our rotations are Euler angles about the fixed axes of the arm's base, x first, then y, then z, in
radians, as BridgeData has them. ManiSkill's controllers multiply the three the other way round, and
its normalized ones (`pd_ee_delta_pose`) turn against the sign of what they are given. On a GPU they
take the three for axis times angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.rotations import (
    conjugate,
    of_fixed_angles,
    product,
    rotation_vector,
    turned,
)
from vlarl.types import Channel


@dataclass(frozen=True)
class Robot:
    """One arm under one of ManiSkill's controllers; seven channels."""

    uid: str
    """ManiSkill's name; empty: the task's own arm."""
    control_mode: str
    embodiment: str
    hand: str
    """Link whose pose is the hand's."""
    control_hz: float
    reach: float
    """Meters of a control step along each axis, at most."""
    turn: float
    """Radians of a control step about each axis, at most."""
    gripper_low: float
    """Closed; ManiSkill's is -1. Open is 1 for both."""
    normalized: bool
    """Whether the controller takes shares of `reach` and `turn` instead of meters and radians."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Displacement, rotation, gripper."""
        moves = (
            Channel(f"delta_{axis}", "m", "delta_position", -self.reach, self.reach)
            for axis in ("x", "y", "z")
        )
        turns = (
            Channel(f"delta_{axis}", "rad", "rotation_euler", -self.turn, self.turn)
            for axis in ("roll", "pitch", "yaw")
        )
        return (*moves, *turns, Channel("gripper", "1", "gripper", self.gripper_low, 1.0))

    def theirs(self, action: NDArray[np.float32], on_gpu: bool = False) -> NDArray[np.float32]:
        """[7] what ManiSkill's `step` wants for our [7]."""
        ours = np.asarray(action, np.float64)
        angles = ours[3:6]
        turn = rotation_vector(of_fixed_angles(angles)) if on_gpu else _reordered(angles)
        move = ours[:3]
        if self.normalized:
            move, turn = move / self.reach, -turn / self.turn
        gripper = 2 * (ours[6] - self.gripper_low) / (1 - self.gripper_low) - 1
        return np.concatenate([move, turn, [gripper]]).astype(np.float32)


PANDA = Robot(
    uid="panda_wristcam",
    control_mode="pd_ee_delta_pose",
    embodiment="maniskill_panda",
    hand="panda_hand_tcp",
    control_hz=20.0,
    reach=0.1,
    turn=0.1,
    gripper_low=-1.0,
    normalized=True,
)
WIDOWX = Robot(
    uid="",
    control_mode="arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos",
    embodiment="widowx_eef",
    hand="ee_gripper_link",
    control_hz=5.0,
    reach=0.05,
    turn=0.25,
    gripper_low=0.0,
    normalized=False,
)


def hand_state(
    base: NDArray[np.float64], hand: NDArray[np.float64], fingers: NDArray[np.float64]
) -> NDArray[np.float32]:
    """[8] position of the hand in the base's frame (m), rotation as axis times angle, fingers (m).

    Args:
        base: [7] pose in the world: position, then a quaternion, its real part first.
        hand: [7] likewise.
        fingers: [2] how far each is open.
    """
    back = conjugate(base[3:])
    place = turned(back, hand[:3] - base[:3])
    vector = rotation_vector(product(back, hand[3:]))
    return np.concatenate([place, vector, fingers]).astype(np.float32)


def _reordered(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles about fixed x, y, z in that order -> the same rotation as Rx Ry Rz."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    # Of Rz Ry Rx, the elements that a product the other way round shows its angles in.
    r00, r01, r02 = cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx
    r12, r22 = sz * sy * cx - cz * sx, cy * cx
    return np.array(
        [np.arctan2(-r12, r22), np.arcsin(np.clip(r02, -1.0, 1.0)), np.arctan2(-r01, r00)]
    )
