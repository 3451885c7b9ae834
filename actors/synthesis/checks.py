"""What can be wrong with one recorded trajectory: each check names the defects that it finds.

Works on the stored records, by finite differences and MuJoCo, not by the functions that made them.
"""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
from numpy.typing import NDArray

from actors.synthesis.mujoco_arm import TABLE, THINGS, MujocoArm
from actors.synthesis.timeline import Timeline
from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.claims import Surroundings, contradictions, read
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.observation import Observation
from vlarl.synthesis.plan import FINGER, PUSH_GAP
from vlarl.synthesis.scene import OTHER, TARGET
from vlarl.synthesis.shard import Trajectory
from vlarl.synthesis.vocabulary import load_vocabulary

BETWEEN = 3
"""Configurations checked for each record: the record and two between it and the next."""
POSITION_TOLERANCE, ROTATION_TOLERANCE = 1e-4, 1e-3
"""By which recorded tool poses may differ from MuJoCo's (m, rad)."""
PLACE_TOLERANCE, FACING_TOLERANCE = 0.006, float(np.deg2rad(3))
"""By which a thing may miss its place and its front its direction (m, rad)."""
STRAIGHT_TOLERANCE = 0.006
"""By which a push or a pull may leave its line (m)."""
VELOCITY_TOLERANCE = 0.06
"""Between recorded velocities and central differences of positions (rad/s)."""
DEPTH_TOLERANCE, FOOT_TOLERANCE = 1e-4, 3e-3
"""By which bodies may be inside one another; and the foot of what is carried in the table (m)."""


def motion_defects(arm: Arm, trajectory: Trajectory) -> Iterator[str]:
    """Numbers that are not finite, limits, velocities, accelerations, rest at both ends."""
    q = trajectory.joint_position.astype(np.float64)
    dq = trajectory.joint_velocity.astype(np.float64)
    arrays = (q, dq, trajectory.tool_pose, trajectory.gripper)
    if len({len(values) for values in arrays}) != 1 or len(q) < 3:
        yield "length"
        return
    if not all(np.isfinite(values).all() for values in arrays):
        yield "not finite"
        return
    between = interpolated(q, dq)
    if (between < arm.low).any() or (between > arm.high).any():
        yield "joint limit"
    speeds = np.maximum(np.abs(dq[:-1]), np.abs(np.diff(q, axis=0)) * RATE)
    if (speeds > arm.velocity).any():
        yield "velocity"
    gains = np.abs(np.diff(dq, axis=0)) * RATE
    second = np.abs(np.diff(q, 2, axis=0)) * RATE**2
    # Positions are stored to 2e-7 rad, which second differences multiply by 2500.
    if (gains > arm.acceleration).any() or (second > arm.acceleration + 5e-3).any():
        yield "acceleration"
    if (np.abs((q[2:] - q[:-2]) * RATE / 2 - dq[1:-1]) > VELOCITY_TOLERANCE).any():
        yield "velocity is not the positions' change"
    if dq[0].any() or np.abs(dq[-1]).max() > 1e-3:
        yield "not at rest at the ends"
    if trajectory.gripper.min() < 0 or trajectory.gripper.max() > 1:
        yield "gripper"


def interpolated(q: Floats, dq: Floats) -> Floats:
    """[(T - 1) BETWEEN + 1, n] records with cubic Hermite values between them."""
    found = [q[-1:]]
    for k in range(BETWEEN):
        s = k / BETWEEN
        h = np.array(
            [2 * s**3 - 3 * s**2 + 1, s**3 - 2 * s**2 + s, 3 * s**2 - 2 * s**3, s**3 - s**2]
        )
        step = 1 / RATE
        part = h[0] * q[:-1] + h[1] * step * dq[:-1] + h[2] * q[1:] + h[3] * step * dq[1:]
        found.append(part)
    inner = np.stack(found[1:], axis=1).reshape(-1, q.shape[1])
    return np.concatenate([inner, found[0]])


def pose_defects(mujoco_arm: MujocoArm, trajectory: Trajectory) -> Iterator[str]:
    """Recorded tool poses that are not those of the recorded joint positions."""
    rotation, wanted = np.empty(9), trajectory.tool_pose.astype(np.float64)
    for q, pose in zip(trajectory.joint_position.astype(np.float64), wanted, strict=True):
        position, matrix = mujoco_arm.tool_pose(q)
        mujoco.mju_quat2Mat(rotation, pose[3:])
        between = np.clip((np.sum(rotation * matrix.ravel()) - 1) / 2, -1, 1)
        if (
            np.linalg.norm(position - pose[:3]) > POSITION_TOLERANCE
            or np.arccos(between) > ROTATION_TOLERANCE
            or abs(np.linalg.norm(pose[3:]) - 1) > 1e-4
        ):
            yield "tool pose"
            return


def collision_defects(
    mujoco_arm: MujocoArm, trajectory: Trajectory, seen: Observation
) -> Iterator[str]:
    """Links, table, things and what is carried inside one another, densely."""
    timeline = Timeline(trajectory, seen)
    for slot in THINGS:
        radius, height = (float(trajectory.scene[name][slot]) for name in ("radius", "height"))
        mujoco_arm.set_size(slot, radius, height)
    dense = interpolated(
        trajectory.joint_position.astype(np.float64), trajectory.joint_velocity.astype(np.float64)
    )
    found = set()
    masks: dict[tuple[int, int, bool], NDArray[np.bool_]] = {}
    for index, q in enumerate(dense):
        step = index / BETWEEN
        tool, _ = mujoco_arm.tool_pose(q)
        for slot in THINGS:
            mujoco_arm.set_place(slot, timeline.place(slot, step, tool))
        active, held = timeline.active(step), timeline.held(step)
        slot = active.slot if active is not None else -1
        key = (slot, held, timeline.receiving(step))
        if key not in masks:
            masks[key] = mujoco_arm.allowed(_may_touch(mujoco_arm.arm, *key))
        for contact in mujoco_arm.contacts(q, masks[key], DEPTH_TOLERANCE):
            pair = {contact.first, contact.second}
            if TABLE in pair and pair & set(THINGS.values()):
                if held >= 0 and THINGS[held] in pair and contact.depth > FOOT_TOLERANCE:
                    found.add("carried thing in the table")
                continue
            found.add(_collision(pair))
    yield from sorted(found)


def _may_touch(arm: Arm, handled: int, held: int, receiving: bool) -> set[tuple[str, str]]:
    """Pairs of bodies: the hand and what it handles, things where one receives another."""
    hand = {"tool", f"link{arm.joints}", f"link{arm.joints - 1}"}
    pairs = {(part, THINGS[slot]) for part in hand for slot in (handled, held) if slot >= 0}
    if receiving:
        pairs |= {(part, THINGS[OTHER]) for part in hand}
        pairs |= {(THINGS[TARGET], THINGS[OTHER])}
    return pairs


def _collision(pair: set[str]) -> str:
    things = pair & set(THINGS.values())
    if len(things) == 2:
        return "carried thing hits a thing"
    if things:
        return "arm hits a thing"
    return "arm hits the table" if TABLE in pair else "arm hits itself"


def goal_defects(trajectory: Trajectory, seen: Observation) -> Iterator[str]:
    """Things that are not taken where they stand or not brought to where they belong."""
    timeline = Timeline(trajectory, seen)
    scene = trajectory.scene
    if not timeline.handlings or len(timeline.handlings) != len(seen.taken):
        yield "nothing is taken"
        return
    end = float(len(trajectory))
    for slot in {handling.slot for handling in timeline.handlings}:
        place = timeline.place(slot, end, trajectory.tool_pose[-1, :3].astype(np.float64))
        assert place is not None
        if np.linalg.norm(place - scene["final_position"][slot]) > PLACE_TOLERANCE:
            yield "goal is missed"
    first = timeline.handlings[0]
    if (
        np.linalg.norm(_taken(trajectory, seen) - scene["position"][first.slot][:2])
        > PLACE_TOLERANCE
    ):
        yield "thing is not where it is taken"
    if trajectory.template in ("rotate_toward", "rotate_reposition"):
        off = scene["yaw"][TARGET] + seen.turned[0] - scene["final_yaw"][TARGET]
        if abs((off + np.pi) % (2 * np.pi) - np.pi) > FACING_TOLERANCE:
            yield "goal is missed"
    if trajectory.template in ("push", "pull") and seen.straight > STRAIGHT_TOLERANCE:
        yield "not straight"


def _taken(trajectory: Trajectory, seen: Observation) -> Floats:
    """[2] where the first thing must have stood: at the tool, or ahead of a push."""
    start, way = seen.taken[0][:2], (seen.released[0] - seen.taken[0])[:2]
    if trajectory.template != "push":
        return np.asarray(start)
    ahead = trajectory.scene["radius"][TARGET] + FINGER + PUSH_GAP
    return np.asarray(start + ahead * way / np.linalg.norm(way))


def instruction_defects(arm: Arm, trajectory: Trajectory, seen: Observation) -> Iterator[str]:
    """What the instruction says but the records contradict."""
    words, scene = load_vocabulary(), trajectory.scene
    other = scene["position"][OTHER] if scene["radius"][OTHER] > 0 else np.full(3, np.nan)
    around = Surroundings(
        target=scene["position"][TARGET].astype(np.float64),
        target_yaw=float(scene["yaw"][TARGET]),
        other=other.astype(np.float64),
        other_radius=float(scene["radius"][OTHER]),
    )
    claims = read(trajectory.instruction, words)
    yield from (
        f"instruction: {claim.split()[0]}" for claim in contradictions(arm, claims, seen, around)
    )
    named = [words.categories[index].name for index in scene["category"][:2] if index >= 0]
    if not all(name in trajectory.instruction for name in named):
        yield "instruction: things"
