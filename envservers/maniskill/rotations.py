"""Quaternions, real part first, as SAPIEN has them, and the angles of channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def conjugate(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """[4] the turn back."""
    return q * (1.0, -1.0, -1.0, -1.0)


def product(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """[4] first `q`, then `p`."""
    real = p[0] * q[0] - p[1:] @ q[1:]
    return np.concatenate([[real], p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:])])


def turned(q: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3] the vector after the turn."""
    return product(product(q, np.concatenate([[0.0], vector])), conjugate(q))[1:]


def rotation_vector(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3] axis times angle, the angle at most half a turn."""
    w, *axis = q
    length = float(np.linalg.norm(axis))
    angle = 2 * np.arctan2(length, abs(w)) * (1.0 if w >= 0 else -1.0)
    found: NDArray[np.float64] = np.array(axis) * (angle / length if length > 1e-9 else 2.0)
    return found


def of_fixed_angles(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """[4] the turn about fixed axes, x first, then y, then z; see `fixed_angles`."""
    x, y, z = (
        np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * axis])
        for angle, axis in zip(angles, np.eye(3), strict=True)
    )
    return product(z, product(y, x))


def fixed_angles(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3] roll, pitch, yaw about fixed axes, x first, of a turn given as axis times angle."""
    angle = float(np.linalg.norm(vector))
    sine = np.sin(angle / 2) / angle if angle > 1e-9 else 0.5
    w, (x, y, z) = np.cos(angle / 2), sine * vector
    return np.array(
        [
            np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0)),
            np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
        ]
    )
