"""From the stages of a plan to joint paths, and which of them are feasible.

A path is followed by inverse kinematics from knot to knot. It is feasible if every knot is reached,
straight lines are straight, joints stay within their limits, and links, held thing, table and
standing things keep their distance at many points along each stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis import motion
from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.collision import (
    Cylinder,
    Segments,
    arm_segments,
    cylinder_clearance,
    cylinders_clearance,
    self_clearance,
    table_clearance,
)
from vlarl.synthesis.inverse_kinematics import Target, comfortable, follow, reached, solve
from vlarl.synthesis.kinematics import Frame, link_frames, tool_point
from vlarl.synthesis.motion import KNOTS, knot_points
from vlarl.synthesis.plan import FREE, GRIP, GRIP_STEPS, LINE, Plan, Stage
from vlarl.synthesis.pose import Poses
from vlarl.synthesis.scene import Scene

SELF_MARGIN, TABLE_MARGIN, THING_MARGIN = 0.012, 0.006, 0.016
"""Distances kept at the checked points, for what happens between them (m)."""
STRAIGHT = 0.004
"""How far the tool may leave a straight line (m)."""
_POINTS = {FREE: 40, LINE: 12}
"""Configurations of a stage that are checked for collisions."""
_DAMPED_STEPS = {FREE: 3, LINE: 2}
_PULL = 0.25
"""Share of the way to the comfortable posture that free joints go during a transfer."""
_TURN_LENGTH = 0.25
"""Meters that a radian of the tool's turn counts for, for its speed."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Path:
    """Joint paths of `N` trajectories with `S` stages."""

    knots: Floats
    """[N, S, KNOTS, n]"""
    steps: NDArray[np.int64]
    """[N, S] control steps."""
    gripper: Floats
    """[N, S + 1]"""
    feasible: Bools
    """[N]"""


def find_path(
    arm: Arm, plan: Plan, scene: Scene, spread: Floats, random: np.random.Generator
) -> Path:
    """Joint paths for a plan.

    Args:
        arm: `n` joints
        plan: of `N` trajectories.
        scene: the things of each.
        spread: [N, n] from -1 to 1: how postures differ from the comfortable one.
        random: for restarts of the inverse kinematics.
    """
    targets = [_targets(plan, index) for index in range(len(plan.stages))]
    rest = comfortable(arm, plan.start.position)
    rest[:, 1:-1] += 0.3 * spread[:, 1:-1] * (arm.joints > 6)
    first, feasible = solve(arm, plan.start, rest, random)
    knots = np.empty((len(scene), len(plan.stages), KNOTS, arm.joints))
    now = first
    for index, (stage, target) in enumerate(zip(plan.stages, targets, strict=True)):
        knots[:, index, 0] = now
        if stage.kind == GRIP:
            knots[:, index] = now[:, None]
            continue
        before = plan.stages[index - 1].end if index else plan.start
        corners = np.concatenate([before.position[:, None], target.position], axis=1)
        rests = comfortable(arm, corners.reshape(-1, 3)).reshape(len(scene), KNOTS, arm.joints)
        rests[..., 1:-1] += 0.3 * spread[:, None, 1:-1]
        pull = _PULL * np.diff(knot_points()) * (stage.kind == FREE)
        knots[:, index, 1:] = follow(arm, now, target, rests, pull, _DAMPED_STEPS[stage.kind])
        now = knots[:, index, -1]
        feasible &= _reached(arm, knots[:, index, 1:], target)
    feasible &= _within_limits(arm, motion.check_points(knots))
    for index, stage in enumerate(plan.stages):
        rows = np.flatnonzero(feasible)
        if stage.kind != GRIP and len(rows):
            feasible[rows] = _clear(arm, plan, stage, scene, knots[:, index], rows)
    return Path(knots, _steps(arm, plan, knots), _gripper(plan), feasible)


def _targets(plan: Plan, index: int) -> Poses:
    """Poses [N, KNOTS - 1] at the knots of a stage, the first knot left out."""
    stage = plan.stages[index]
    start, end = plan.stages[index - 1].end if index else plan.start, stage.end
    u = knot_points()[1:]
    yaw = start.yaw[:, None] + (end.yaw - start.yaw)[:, None] * u
    lean = start.lean[:, None] + (end.lean - start.lean)[:, None] * u[:, None]
    if stage.kind != FREE:
        way = (end.position - start.position)[:, None]
        return Poses(start.position[:, None] + way * u[:, None], yaw, lean)
    radius, angle, height = (
        a[:, None] + (b - a)[:, None] * u
        for a, b in zip(_cylindrical(start.position), _cylindrical(end.position), strict=True)
    )
    middle = np.sin(np.pi * u) ** 2
    height = height + plan.bump[:, None] * middle
    position = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)
    across = np.cross([0, 0, 1.0], end.position - start.position)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    return Poses(position + plan.bend * across[:, None] * middle[:, None], yaw, lean)


def _cylindrical(position: Floats) -> tuple[Floats, Floats, Floats]:
    """Radius, angle and height [N] of positions [N, 3]."""
    x, y, z = position.T
    return np.hypot(x, y), np.arctan2(y, x), z


def _reached(arm: Arm, knots: Floats, target: Poses) -> Bools:
    """[N] whether all knots [N, KNOTS - 1, n] meet their targets."""
    flat = Poses(target.position.reshape(-1, 3), target.yaw.reshape(-1), target.lean.reshape(-1, 2))
    met = reached(arm, knots.reshape(-1, arm.joints), Target.of(flat))
    return np.asarray(met.reshape(target.yaw.shape).all(axis=1))


def _within_limits(arm: Arm, q: Floats) -> Bools:
    """[N] whether joint positions [N, S, CHECKS, n] are."""
    margin = 0.005
    inside = (q > arm.low + margin) & (q < arm.high - margin)
    return np.asarray(inside.all(axis=(1, 2, 3)))


def _clear(
    arm: Arm, plan: Plan, stage: Stage, scene: Scene, knots: Floats, rows: NDArray[np.int64]
) -> Bools:
    """[len(rows)] whether these trajectories keep their distances during a stage."""
    count = _POINTS[stage.kind]
    points = motion.basis(np.linspace(0, 1, count)) @ knots[rows]
    q = np.ascontiguousarray(points.reshape(-1, arm.joints).T, np.float32)
    frames = link_frames(arm, q)
    segments = arm_segments(arm, frames)
    tip = tool_point(arm, frames)
    clear = self_clearance(arm, segments) > SELF_MARGIN
    clear &= table_clearance(arm, segments) > TABLE_MARGIN

    def cylinder(foot: Floats, slot: int) -> Cylinder:
        radius, height = scene.radius[rows, slot], scene.height[rows, slot]
        return Cylinder(foot, np.repeat(radius, count), np.repeat(height, count))

    held = None
    if stage.held >= 0:
        low = np.repeat(plan.grasp_height[rows, stage.held], count)
        held = cylinder(tip - np.stack([0 * low, 0 * low, low]), stage.held)
        # The wrist and the tool are beside what they hold; no other link may be.
        others = [s for s, c in zip(segments, arm.capsules, strict=True) if c.link < arm.joints - 1]
        clear &= cylinder_clearance(others, held) > SELF_MARGIN
    moving = [s for s, c in zip(segments, arm.capsules, strict=True) if c.link >= 2]
    for slot, places in stage.standing:
        foot = np.repeat(places[rows].T, count, axis=1)
        clear &= _clear_of(moving, held, cylinder(foot, slot))
    if stage.kind == LINE:
        clear &= _straight(tip.reshape(3, -1, count)).ravel()
    return np.asarray(clear.reshape(-1, count).all(axis=1))


def _clear_of(moving: list[Segments], held: Cylinder | None, thing: Cylinder) -> Bools:
    clear = cylinder_clearance(moving, thing) > THING_MARGIN
    if held is not None:
        clear &= cylinders_clearance(held, thing) > THING_MARGIN
    return np.asarray(clear)


def _straight(tip: Floats) -> Bools:
    """[N, points] whether the tool [3, N, points] is on the line between first and last."""
    start, way = tip[..., :1], tip[..., -1:] - tip[..., :1]
    length = np.maximum((way**2).sum(0), 1e-9)
    share = ((tip - start) * way).sum(0) / length
    off = tip - start - way * np.clip(share, 0, 1)
    return np.asarray((off**2).sum(0) < STRAIGHT**2)


def _steps(arm: Arm, plan: Plan, knots: Floats) -> NDArray[np.int64]:
    """[N, S] control steps of each stage."""
    paths, speeds = np.empty(knots.shape[:2]), np.empty(knots.shape[:2])
    before = plan.start
    for index, stage in enumerate(plan.stages):
        target = _targets(plan, index)
        corners = np.concatenate([before.position[:, None], target.position], axis=1)
        length = np.linalg.norm(np.diff(corners, axis=1), axis=-1).sum(1)
        paths[:, index] = np.hypot(length, _TURN_LENGTH * (stage.end.yaw - before.yaw))
        speeds[:, index] = stage.speed * plan.pace
        before = stage.end
    steps = motion.shortest_durations(arm, knots, paths, speeds)
    still = [index for index, stage in enumerate(plan.stages) if stage.kind == GRIP]
    steps[:, still] = GRIP_STEPS
    return steps


def _gripper(plan: Plan) -> Floats:
    """[N, S + 1] closedness at the start and after each stage."""
    return np.stack([plan.gripper, *(stage.gripper for stage in plan.stages)], axis=1)


def tool_poses(arm: Arm, q: NDArray[np.float32]) -> tuple[Floats, Frame]:
    """Tool points [T, 3] and the tool's frame of `T` recorded joint positions [T, n]."""
    frames = link_frames(arm, np.ascontiguousarray(q.T))
    return tool_point(arm, frames).T, frames[-1]
