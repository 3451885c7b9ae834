"""Turns, from the angles of our channels to the vectors that SimplerEnv takes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def axis_times_angle(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """[3] the turn about the fixed x axis, then y, then z, as axis times angle."""
    turn = np.array([1.0, 0.0, 0.0, 0.0])
    for axis, angle in enumerate((roll, pitch, yaw)):
        own = np.zeros(4)
        own[0], own[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
        turn = _times(own, turn)
    if turn[0] < 0:
        turn = -turn
    length = float(np.linalg.norm(turn[1:]))
    if length < 1e-12:
        return np.zeros(3)
    return turn[1:] / length * 2 * math.atan2(length, turn[0])


def _times(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The turn `right`, then `left`, as quaternions (w, x, y, z)."""
    real = left[0] * right[0] - left[1:] @ right[1:]
    rest = left[0] * right[1:] + right[0] * left[1:] + np.cross(left[1:], right[1:])
    return np.array([real, *rest])
