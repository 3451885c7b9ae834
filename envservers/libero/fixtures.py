"""The expert's moves for drawers, doors and knobs. Each returns an action; see `expert.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.libero.goals import Goal
from envservers.libero.grasps import nearest_yaw
from envservers.libero.motions import (
    CLOSED,
    OPEN,
    down,
    down_at,
    facing,
    still,
    toward,
    yaw_of,
)
from envservers.libero.view import Joint, View

Memory = dict[str, Any]
Action = NDArray[np.float64]

_LOW_HANDLE = 0.09
"""Above the table: below it, a horizontal hand would touch the table."""
_LEANING = 35.0
"""Degrees from pointing down, of a hand that pushes a drawer."""
_PULL = 0.05
_APART = 0.09


def first_move(view: View, goal: Goal) -> str:
    """The move that begins to open, close or turn what the goal names; `stay` where none can."""
    joint = view.joint(goal.subject)
    if joint is None:
        return "stay"
    if goal.predicate in ("turnon", "turnoff"):
        return "knob_above"
    if joint.slides:
        return "drawer_before" if goal.predicate == "open" else "push_before"
    return "push_before" if goal.predicate == "close" else "stay"


def drawer_before(view: View, goal: Goal, memory: Memory) -> Action:
    """In front of the handle, the fingers above and below it."""
    bar, outward, axes = _handle(view, goal)
    spot = bar + outward * _APART
    if memory["steps"] == 0:
        memory["up"] = True
    if memory["up"]:  # over everything first, then down in front of the drawers
        high = np.array([*view.hand[:2], max(view.hand[2], view.surroundings().top + 0.06)])
        far = float(np.linalg.norm(view.hand[:2] - (spot + outward * 0.06)[:2]))
        memory["up"] = far > 0.04
        high[:2] = (spot + outward * 0.06)[:2]
        return toward(view, high, down(view, 0.0), OPEN)
    turned = np.trace(axes @ view.hand_axes.T) > 2.9
    if np.linalg.norm(view.hand - spot) < 0.012 and turned:
        memory["move"] = "drawer_reach"
    elif memory["steps"] > 160:
        memory["move"] = "leave"
    return toward(view, spot, axes, OPEN)


def drawer_reach(view: View, goal: Goal, memory: Memory) -> Action:
    """The handle between the fingers."""
    bar, _, axes = _handle(view, goal)
    if np.linalg.norm(view.hand - bar) < 0.008 or memory["steps"] > 25:
        memory["move"] = "drawer_grip"
    return toward(view, bar, axes, OPEN, speed=0.6)


def drawer_grip(view: View, goal: Goal, memory: Memory) -> Action:
    """Close on it."""
    if memory["steps"] > 11:
        memory["move"] = "drawer_pull"
    return still(CLOSED)


def drawer_pull(view: View, goal: Goal, memory: Memory) -> Action:
    """Pull until it is open as far as it goes, or the fingers have slipped off."""
    bar, outward, axes = _handle(view, goal)
    joint = _joint(view, goal)
    far = joint.low if abs(joint.low) > abs(joint.high) else joint.high
    if abs(joint.position - far) < 0.006 or memory["steps"] > 45:
        memory["move"] = "leave"
    target = view.hand + outward * _PULL
    target[2] = bar[2]
    return toward(view, target, axes, CLOSED)


def push_before(view: View, goal: Goal, memory: Memory) -> Action:
    """Outside of what is open, the fingers closed."""
    spot, along, axes = _push(view, goal)
    start = spot - along * 0.07
    far = np.linalg.norm(view.hand[:2] - start[:2])
    if far > 0.03:
        start[2] = max(start[2], view.surroundings().top + 0.05)
    elif abs(view.hand[2] - start[2]) < 0.01:
        memory["move"] = "push"
    if memory["steps"] > 200:
        memory["move"] = "leave"
    return toward(view, start, axes, CLOSED)


def push(view: View, goal: Goal, memory: Memory) -> Action:
    """Push it shut."""
    spot, along, axes = _push(view, goal)
    if view.holds(goal) or memory["steps"] > 90:
        memory["move"] = "leave"
    target = spot + along * 0.04
    return toward(view, target, axes, CLOSED, speed=0.8)


def knob_above(view: View, goal: Goal, memory: Memory) -> Action:
    """Over the knob, the fingers to both sides of its ridge."""
    spot, yaw = _knob(view, goal)
    over = spot + np.array([0, 0, 0.06])
    if np.linalg.norm(view.hand[:2] - spot[:2]) > 0.05:
        over[2] = max(over[2], view.hand[2])
    if np.linalg.norm(view.hand - over) < 0.012 and abs(nearest_yaw(yaw - yaw_of(view))) < 0.08:
        memory["move"] = "knob_down"
    return toward(view, over, down(view, yaw), OPEN)


def knob_down(view: View, goal: Goal, memory: Memory) -> Action:
    """Around it."""
    spot, yaw = _knob(view, goal)
    if np.linalg.norm(view.hand - spot) < 0.006 or memory["steps"] > 20:
        memory["move"] = "knob_grip"
        memory["at"] = [*view.hand.tolist(), yaw_of(view)]
    return toward(view, spot, down(view, yaw), OPEN)


def knob_grip(view: View, goal: Goal, memory: Memory) -> Action:
    """Close on it."""
    if memory["steps"] > 9:
        memory["move"] = "knob_turn"
    return still(CLOSED)


def knob_turn(view: View, goal: Goal, memory: Memory) -> Action:
    """Turn it, a right angle at most; the rest after letting go."""
    joint = _joint(view, goal)
    sense = float(np.sign(joint.axis[2])) * (1 if goal.predicate == "turnon" else -1)
    *spot, begun = memory["at"]
    turned = sense * (yaw_of(view) - begun)
    if view.holds(goal) or memory["steps"] > 40 or turned > 1.4:
        memory["move"] = "release"
    return toward(view, np.array(spot), down_at(yaw_of(view) + sense * 0.4), CLOSED)


def leave(view: View, goal: Goal, memory: Memory) -> Action:
    """Let go, back away the way the hand came, and up."""
    if memory["steps"] == 0:
        memory["from"] = view.hand.tolist()
        memory["back"] = (-view.hand_axes[:, 2]).tolist()
    start, back = np.array(memory["from"]), np.array(memory["back"])
    if memory["steps"] < 6:
        return still(OPEN)
    if memory["steps"] < 18:
        return toward(view, start + back * 0.1, view.hand_axes, OPEN)
    high = start + back * 0.1
    high[2] = max(high[2], view.surroundings().top + 0.08)
    if view.hand[2] > high[2] - 0.03 or memory["steps"] > 60:
        memory["move"] = "choose"
    return toward(view, high, down(view, 0.0), OPEN)


MOVES = {
    "drawer_before": drawer_before,
    "drawer_reach": drawer_reach,
    "drawer_grip": drawer_grip,
    "drawer_pull": drawer_pull,
    "push_before": push_before,
    "push": push,
    "knob_above": knob_above,
    "knob_down": knob_down,
    "knob_grip": knob_grip,
    "knob_turn": knob_turn,
    "leave": leave,
}


def _joint(view: View, goal: Goal) -> Joint:
    joint = view.joint(goal.subject)
    assert joint is not None
    return joint


def _outward(joint: Joint) -> NDArray[np.float64]:
    """The direction in which a drawer opens."""
    return joint.axis * (1 if abs(joint.high) > abs(joint.low) else -1)


def _handle(
    view: View, goal: Goal
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Middle of a drawer's handle, the way out, and the hand's rotation to take it."""
    joint = _joint(view, goal)
    outward = _outward(joint)
    boxes = view.body_boxes(joint.body).corners
    outer = (boxes @ outward).max(axis=1)
    bar = boxes[int(outer.argmax())].mean(axis=0)
    table = min(view.boxes(name).bottom for name in view.problem.objects)
    low = bar[2] - table < _LOW_HANDLE
    return bar, outward, facing(view, outward, np.deg2rad(60 if low else 88))


def _push(
    view: View, goal: Goal
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where to push what is open, which way that closes it, and the hand's rotation for it."""
    joint = _joint(view, goal)
    corners = view.body_boxes(joint.body).corners
    if joint.slides:
        outward = _outward(joint)
        bar = corners[int((corners @ outward).max(axis=1).argmax())]
        spot = bar.mean(axis=0) + outward * 0.02
        # Under a cabinet, an arm above the hand would touch the cabinet before the drawer is shut.
        return spot, -outward, facing(view, outward, np.deg2rad(_LEANING))
    middles = corners.mean(axis=1)
    arms = middles - joint.anchor
    arms -= np.outer(arms @ joint.axis, joint.axis)
    tip = int(np.linalg.norm(arms, axis=1).argmax())
    arm = arms[tip]
    closes = -np.sign(joint.position) if joint.position else 1.0
    along = np.cross(joint.axis * closes, arm / np.linalg.norm(arm))
    spot = joint.anchor + arm * 0.85
    spot[2] = float(np.median(middles[:, 2]))
    return spot - along * 0.02, along, down(view, float(np.arctan2(along[1], along[0])))


def _knob(view: View, goal: Goal) -> tuple[NDArray[np.float64], float]:
    """Where to hold a knob, and the yaw at which the fingers close on its ridge."""
    joint = _joint(view, goal)
    boxes = view.body_boxes(joint.body)
    points = boxes.between(boxes.top - 0.006, boxes.top + 0.01).reshape(-1, 2)
    yaws = np.linspace(-np.pi / 2, np.pi / 2, 36, endpoint=False)
    best = min(yaws, key=lambda yaw: _width(points, yaw))
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    return np.array([*center, boxes.top - 0.006]), float(best)


def _width(points: NDArray[np.float64], yaw: float) -> float:
    return float(np.ptp(points @ np.array([-np.sin(yaw), np.cos(yaw)])))
