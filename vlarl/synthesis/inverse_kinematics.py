"""Damped least squares for many arms at once: from a comfortable posture, and along paths.

Sciavicco and Siciliano's damped inverse: dq = z + J' (J J' + d^2 1)^-1 (e - J z), where `e` is what
is missing to the target and `z` pulls joints that the task leaves free to a comfortable posture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.kinematics import cross, jacobian, link_frames, tool_point
from vlarl.synthesis.pose import Poses

POSITION_TOLERANCE, ROTATION_TOLERANCE = 1e-3, 5e-3
"""Meters and radians that a solution may miss its target by."""
_DAMPING = 0.01
_LONGEST_STEP = 0.5
_RESTARTS, _ITERATIONS = 2, 14


def comfortable(arm: Arm, position: Floats) -> Floats:
    """[N, n] the arm's posture, turned towards positions [N, 3]; its tool has yaw as its heading."""
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


def missing(arm: Arm, q: Floats, target: Poses) -> tuple[Floats, Floats]:
    """What is missing to the target, [N, 6] (m, rad), and the Jacobian [N, 6, n], at `q` [N, n]."""
    frames = link_frames(arm, q.T)
    tool, wanted = frames[-1], target.axes()
    rotation = sum(
        cross(is_now, should_be)
        for is_now, should_be in zip((tool.x, tool.y, tool.z), wanted, strict=True)
    )
    error = np.concatenate([target.position - tool_point(arm, frames).T, 0.5 * rotation.T], axis=1)
    return error, jacobian(arm, frames)


def improve(
    arm: Arm, q: Floats, target: Poses, rest: Floats | None = None, pull: float = 0.0
) -> Floats:
    """One damped step from `q` [N, n]; `pull` is the share of the way to `rest` for free joints."""
    error, jac = missing(arm, q, target)
    gram = jac @ jac.transpose(0, 2, 1)
    gram[:, range(6), range(6)] += _DAMPING**2
    free = np.zeros_like(q)
    if rest is not None and pull and arm.joints > 6:
        free = pull * (rest - q)
        # The last joint's turn is the tool's own: it has no posture of its own to go to.
        free[:, -1] = 0
        error = error - (jac @ free[..., None])[..., 0]
    step = free + (jac.transpose(0, 2, 1) @ np.linalg.solve(gram, error[..., None]))[..., 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return q + step * np.minimum(1, _LONGEST_STEP / np.maximum(longest, _LONGEST_STEP))


def reached(arm: Arm, q: Floats, target: Poses) -> NDArray[np.bool_]:
    """[N] whether `q` [N, n] meets the target within the tolerances and the joint limits."""
    error, _ = missing(arm, q, target)
    near = np.linalg.norm(error[:, :3], axis=1) < POSITION_TOLERANCE
    turned = np.linalg.norm(error[:, 3:], axis=1) < ROTATION_TOLERANCE
    # The rotation error vanishes at half a turn too: there the axes point apart.
    tool = link_frames(arm, q.T)[-1]
    aligned = (tool.z * target.axes()[2]).sum(0) > 0
    aligned &= (tool.x * target.axes()[0]).sum(0) > 0
    inside = ((q > arm.low) & (q < arm.high)).all(axis=1)
    return np.asarray(near & turned & aligned & inside)


def solve(
    arm: Arm, target: Poses, rest: Floats, random: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Joint positions [N, n] for targets, from `rest` [N, n] with restarts nearby; and which succeed."""
    q = rest
    for _ in range(_ITERATIONS):
        q = improve(arm, q, target, rest, 0.05)
    good = reached(arm, q, target)
    for _ in range(_RESTARTS):
        rows = np.flatnonzero(~good)
        if not len(rows):
            break
        part = Poses(target.position[rows], target.yaw[rows], target.lean[rows])
        trial = rest[rows] + random.uniform(-0.5, 0.5, (len(rows), arm.joints))
        for _ in range(_ITERATIONS):
            trial = improve(arm, trial, part, rest[rows], 0.05)
        q[rows] = trial
        good[rows] = reached(arm, trial, part)
    return q, good


def follow(
    arm: Arm, start: Floats, targets: Poses, rests: Floats, pull: Floats, steps: int
) -> Floats:
    """[N, W, n] joint positions along `W` targets each, from `start` [N, n] before the first.

    The first joint turns ahead with the direction of the target, which leaves little to the damped
    steps where a path goes around the base.

    Args:
        arm: `n` joints
        start: a solution near the first target.
        targets: arrays of leading shape [N, W].
        rests: [N, W + 1, n] comfortable postures at the start and at each target, for joints that
            the task leaves free.
        pull: [W] the share of the way to them at each target.
        steps: damped steps for each target.
    """
    found = np.empty((*targets.yaw.shape, arm.joints))
    q = start
    ahead = np.diff(rests[..., 0], axis=1)
    for index in range(found.shape[1]):
        target = Poses(targets.position[:, index], targets.yaw[:, index], targets.lean[:, index])
        q = q.copy()
        q[:, 0] += ahead[:, index]
        q = improve(arm, q, target, rests[:, index + 1], float(pull[index]))
        for _ in range(steps - 1):
            q = improve(arm, q, target)
        found[:, index] = q
    return found
