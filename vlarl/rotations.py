"""Rotations as matrices [..., 3, 3] and as axis times angle [..., 3], in radians. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def matrix_of(axis_angle: Floats) -> NDArray[np.float64]:
    """[..., 3] -> [..., 3, 3] (Rodrigues' formula)."""
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    # sinc(t / pi) = sin(t) / t has no hole at zero; (1 - cos t) / t^2 is half the square of it.
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * (cross @ cross)


def axis_angle_of(matrix: Floats) -> NDArray[np.float64]:
    """[..., 3, 3] -> [..., 3], of an angle from 0 to pi.

    By way of the quaternion, whose largest component is found first: the trace alone says nothing
    of the axis near half a turn.
    """
    m = np.asarray(matrix, np.float64)
    trace = np.trace(m, axis1=-2, axis2=-1)[..., None]
    diagonal = np.diagonal(m, axis1=-2, axis2=-1)
    squares = np.concatenate([1 + trace, 1 + 2 * diagonal - trace], axis=-1) / 4
    skew = np.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
    )
    # Row k holds q_k times the quaternion (w, x, y, z), for each k.
    outer = np.empty((*m.shape[:-2], 4, 4))
    outer[..., 1:, 1:] = (m + np.swapaxes(m, -1, -2)) / 4
    outer[..., 0, 1:] = outer[..., 1:, 0] = skew / 4
    for k in range(4):
        outer[..., k, k] = squares[..., k]
    largest = squares.argmax(axis=-1)[..., None, None]
    row = np.take_along_axis(outer, largest, axis=-2)[..., 0, :]
    quaternion = row / np.linalg.norm(row, axis=-1, keepdims=True)
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    scalar, vector = quaternion[..., :1], quaternion[..., 1:]
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, scalar)
    return np.where(length > 0, angle / np.where(length > 0, length, 1), 2.0) * vector


def angle_between(first: Floats, second: Floats) -> NDArray[np.float64]:
    """[...] angle of the rotation between two of [..., 3, 3]."""
    between = np.swapaxes(first, -1, -2) @ second
    return np.linalg.norm(axis_angle_of(between), axis=-1)
