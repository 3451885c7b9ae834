"""How the expert moves the hand: one control step toward a pose.

The controller covers about a quarter of what it is told within a step, so that it is told about
twice what is missing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envservers.libero.grasps import nearest_yaw
from envservers.libero.view import View

OPEN, CLOSED = -1.0, 1.0
"""Of the gripper."""
_POINTS_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_METERS, _RADIANS = 0.05, 0.5
_GAIN, _TURN_GAIN = 2.2, 1.5


def still(gripper: float) -> NDArray[np.float64]:
    """[7] no motion."""
    return np.array([0, 0, 0, 0, 0, 0, gripper])


def toward(
    view: View,
    target: NDArray[np.float64],
    axes: NDArray[np.float64],
    gripper: float,
    speed: float = 1.0,
) -> NDArray[np.float64]:
    """[7] an action that brings the hand to position `target` [3] and rotation `axes` [3, 3].

    Args:
        view: the scene.
        target: of the hand's site.
        axes: its rotation.
        gripper: the last channel.
        speed: at most, of the fastest.
    """
    ahead = (target - view.hand) * _GAIN / _METERS
    fastest = float(np.abs(ahead).max())
    if fastest > speed:
        ahead = ahead * (speed / fastest)
    turn = rotation_vector(axes @ view.hand_axes.T) * _TURN_GAIN / _RADIANS
    return np.array([*ahead, *np.clip(turn, -1, 1), gripper])


def down(view: View, yaw: float) -> NDArray[np.float64]:
    """[3, 3] pointing down, the fingers closing at `yaw`: of the two ways the nearer one."""
    angle = yaw_of(view) + nearest_yaw(yaw - yaw_of(view))
    return _about_z(angle) @ _POINTS_DOWN


def down_at(angle: float) -> NDArray[np.float64]:
    """[3, 3] pointing down at exactly this angle about the vertical."""
    return _about_z(angle) @ _POINTS_DOWN


def facing(view: View, outward: NDArray[np.float64], tilt: float) -> NDArray[np.float64]:
    """[3, 3] pointing against `outward` (horizontal), the fingers above each other.

    Args:
        view: the scene.
        outward: [3] of a drawer's front.
        tilt: from pointing down; a right angle: horizontally.
    """
    up = np.array([0.0, 0.0, 1.0])
    approach = -outward * np.sin(tilt) - up * np.cos(tilt)
    across = up * np.sin(tilt) - outward * np.cos(tilt)
    ways = [
        np.stack([side, np.cross(approach, side), approach], axis=1) for side in (across, -across)
    ]
    # The way that is nearer to the hand as it points down.
    return max(ways, key=lambda axes: float(np.trace(axes @ _POINTS_DOWN.T)))


def yaw_of(view: View) -> float:
    """At which the hand's fingers close now, while it points down."""
    across = view.hand_axes[:, 0]
    return float(np.arctan2(across[1], across[0]) - np.pi / 2)


def rotation_vector(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3] axis times angle of a rotation [3, 3]."""
    angle = np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))
    skew = np.array(
        [matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]
    )
    norm = np.linalg.norm(skew)
    return skew / norm * angle if norm > 1e-9 else np.zeros(3)


def _about_z(angle: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
