"""Waypoints `(dx, dy, dtheta)`: poses in the ground plane as displacements and turns, and back.

Poses are `(x, y, theta)`: meters, and radians counterclockwise from the x axis. Each waypoint is
relative to the one before it, in that one's frame (x ahead, y to the left): "relative displacement
and heading change" (paper section 2.4) does not say relative to what, and so every waypoint is a
control step of its own. A chunk can then be cut after any of them, as sliding-window execution
does (section 5.1.3), and continues from wherever the robot got to. Numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def wrapped(angle: NDArray[Any]) -> NDArray[np.float64]:
    """The same angles in [-pi, pi)."""
    return (np.asarray(angle, np.float64) + np.pi) % (2 * np.pi) - np.pi


def moved(pose: NDArray[Any], waypoint: NDArray[Any]) -> NDArray[np.float64]:
    """The poses [..., 3] that `waypoint` [..., 3] leads to from `pose` [..., 3]: move, then turn.

    Headings are not wrapped.
    """
    x, y, theta = np.moveaxis(np.asarray(pose, np.float64), -1, 0)
    ahead, left, turn = np.moveaxis(np.asarray(waypoint, np.float64), -1, 0)
    cosine, sine = np.cos(theta), np.sin(theta)
    return np.stack(
        [x + cosine * ahead - sine * left, y + sine * ahead + cosine * left, theta + turn], axis=-1
    )


def poses_from_waypoints(start: NDArray[Any], waypoints: NDArray[Any]) -> NDArray[np.float64]:
    """The trajectory of `waypoints` [..., H, 3] from the pose `start` [..., 3].

    Returns:
        [..., H + 1, 3] poses, `start` the first; headings are not wrapped.
    """
    poses = [np.asarray(start, np.float64)]
    for step in range(np.shape(waypoints)[-2]):
        poses.append(moved(poses[-1], np.asarray(waypoints)[..., step, :]))
    return np.stack(poses, axis=-2)


def waypoints_from_poses(poses: NDArray[Any]) -> NDArray[np.float64]:
    """Inverse of `poses_from_waypoints`: [..., H + 1, 3] poses -> [..., H, 3] waypoints.

    Turns are in [-pi, pi): of two headings, only the shortest turn between them is known.
    """
    poses = np.asarray(poses, np.float64)
    change = poses[..., 1:, :] - poses[..., :-1, :]
    theta = poses[..., :-1, 2]
    cosine, sine = np.cos(theta), np.sin(theta)
    x, y, turn = np.moveaxis(change, -1, 0)
    return np.stack([cosine * x + sine * y, cosine * y - sine * x, wrapped(turn)], axis=-1)
