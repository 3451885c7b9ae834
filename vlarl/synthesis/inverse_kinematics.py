"""Damped least squares for many arms at once: from a comfortable posture, and along paths.

Sciavicco and Siciliano's damped inverse: dq = z + J' (J J' + d^2 1)^-1 (e - J z), where `e` is what
is missing to the target and `z` pulls joints that the task leaves free to a comfortable posture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.kinematics import Frame, cross, jacobian, link_frames, tool_point
from vlarl.synthesis.pose import Poses

POSITION_TOLERANCE, ROTATION_TOLERANCE = 1e-3, 5e-3
"""Meters and radians that a solution may miss its target by."""
_DAMPING = 0.01
_LONGEST_STEP = 0.5
_RESTARTS, _ITERATIONS = 2, 14


def comfortable(arm: Arm, position: Floats) -> Floats:
    """[N, n] the arm's posture, turned towards positions [N, 3]."""
    found = np.repeat(arm.posture[None], len(position), axis=0)
    first = tool_point(arm, link_frames(arm, arm.posture[:, None]))[:, 0]
    # The tool of some arms is beside the plane in which they reach: turn by the difference.
    aside = np.arcsin(np.clip(first[1] / np.linalg.norm(position[:, :2], axis=1), -0.9, 0.9))
    found[:, 0] += base_sign(arm) * (np.arctan2(position[:, 1], position[:, 0]) - aside)
    return found


def base_sign(arm: Arm) -> float:
    """1 where joint 1 turns counterclockwise seen from above, else -1."""
    return float(np.sign(arm.rotations[0][2, 2]))


def posture_yaw(arm: Arm) -> float:
    """Yaw of the tool in the comfortable posture, less the heading of its position."""
    frames = link_frames(arm, arm.posture[:, None])
    point = tool_point(arm, frames)[:, 0]
    aside = np.arcsin(point[1] / np.linalg.norm(point[:2]))
    heading = np.arctan2(point[1], point[0]) - aside
    return float(np.arctan2(frames[-1].x[1, 0], frames[-1].x[0, 0]) - heading)


@dataclass(frozen=True)
class Target:
    """`N` tool poses as inverse kinematics need them."""

    position: Floats
    """[3, N]"""
    axes: tuple[Floats, Floats, Floats]
    """The tool's x, y and z, each [3, N]."""

    @staticmethod
    def of(poses: Poses) -> Target:
        """From poses with one leading axis."""
        return Target(np.ascontiguousarray(poses.position.T), poses.axes())


def missing(arm: Arm, frames: list[Frame], target: Target) -> Floats:
    """[N, 6] what is missing to the target (m, rad)."""
    tool = frames[-1]
    x, y, z = (cross(*pair) for pair in zip((tool.x, tool.y, tool.z), target.axes, strict=True))
    return np.concatenate([target.position - tool_point(arm, frames), 0.5 * (x + y + z)]).T


def improve(
    arm: Arm, q: Floats, target: Target, rest: Floats | None = None, pull: float = 0.0
) -> Floats:
    """One damped step from `q` [N, n]; `pull` is the share of the way to `rest` for free joints."""
    frames = link_frames(arm, q.T)
    error, jac = missing(arm, frames, target), jacobian(arm, frames)
    transposed = jac.transpose(0, 2, 1)
    gram = jac @ transposed
    gram[:, range(6), range(6)] += _DAMPING**2
    if rest is not None and pull and arm.joints > 6:
        free = pull * (rest - q)
        # The last joint's turn is the tool's own: it has no posture of its own to go to.
        free[:, -1] = 0
        error = error - (jac @ free[..., None])[..., 0]
        step = free + (transposed @ np.linalg.solve(gram, error[..., None]))[..., 0]
    else:
        step = (transposed @ np.linalg.solve(gram, error[..., None]))[..., 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return q + step * np.minimum(1, _LONGEST_STEP / np.maximum(longest, _LONGEST_STEP))


def reached(arm: Arm, q: Floats, target: Target) -> NDArray[np.bool_]:
    """[N] whether `q` [N, n] meets the target within the tolerances and the joint limits."""
    frames = link_frames(arm, q.T)
    error = missing(arm, frames, target)
    near = np.linalg.norm(error[:, :3], axis=1) < POSITION_TOLERANCE
    turned = np.linalg.norm(error[:, 3:], axis=1) < ROTATION_TOLERANCE
    # The rotation error vanishes at half a turn too: there the axes point apart.
    aligned = (frames[-1].z * target.axes[2]).sum(0) > 0
    aligned &= (frames[-1].x * target.axes[0]).sum(0) > 0
    inside = ((q > arm.low) & (q < arm.high)).all(axis=1)
    return np.asarray(near & turned & aligned & inside)


def solve(
    arm: Arm, poses: Poses, rest: Floats, random: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Joint positions [N, n] for poses, from `rest` with restarts nearby; and which succeed."""
    q: Floats = rest
    target = Target.of(poses)
    for _ in range(_ITERATIONS):
        q = improve(arm, q, target, rest, 0.05)
    good = reached(arm, q, target)
    for _ in range(_RESTARTS):
        rows = np.flatnonzero(~good)
        if not len(rows):
            break
        part = Target.of(Poses(poses.position[rows], poses.yaw[rows], poses.lean[rows]))
        trial: Floats = rest[rows] + random.uniform(-0.5, 0.5, (len(rows), arm.joints))
        for _ in range(_ITERATIONS):
            trial = improve(arm, trial, part, rest[rows], 0.05)
        q[rows] = trial
        good[rows] = reached(arm, trial, part)
    return q, good


def follow(
    arm: Arm, start: Floats, poses: Poses, rests: Floats, pull: Floats, steps: int
) -> Floats:
    """[N, W, n] joint positions along `W` poses each, from `start` [N, n] before the first.

    The first joint turns ahead with the direction of the target, which leaves little to the damped
    steps where a path goes around the base.

    Args:
        arm: `n` joints
        start: a solution near the first pose.
        poses: arrays of leading shape [N, W].
        rests: [N, W + 1, n] comfortable postures at the start and at each pose, for joints that
            the task leaves free.
        pull: [W] the share of the way to them at each pose.
        steps: damped steps for each pose.
    """
    found = np.empty((*poses.yaw.shape, arm.joints))
    q = start
    ahead = np.diff(rests[..., 0], axis=1)
    position, axes = np.moveaxis(poses.position, -1, 0), poses.axes()
    for index in range(found.shape[1]):
        x, y, z = (np.ascontiguousarray(axis[..., index]) for axis in axes)
        target = Target(np.ascontiguousarray(position[..., index]), (x, y, z))
        q = q.copy()
        q[:, 0] += ahead[:, index]
        q = improve(arm, q, target, rests[:, index + 1], float(pull[index]))
        for _ in range(steps - 1):
            q = improve(arm, q, target)
        found[:, index] = q
    return found
