"""Things on the table and what is to become of them, drawn for many trajectories at once.

Up to three things stand in a scene: the target, another that the instruction may name, and one that
is in the way. Each is an upright cylinder. Scenes are drawn where the arm can reach; those whose
things overlap, or whose goal leaves the reachable part of the table, are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.inverse_kinematics import posture_yaw
from vlarl.synthesis.vocabulary import (
    COMPASS,
    INWARD,
    RELATIONS,
    Vocabulary,
    headings,
    load_vocabulary,
    wrapped,
)

TARGET, OTHER, OBSTACLE = 0, 1, 2
TEMPLATES = ("pick_place", "push", "pull", "rotate_reposition", "rotate_toward", "swap")
"""The six families of paper section 3.2.3."""
GOALS = ("relative", "reference", "receive", "region", "facing", "swap")
GRIPPER_TURN = 1.6
"""The tool's yaw stays within this angle of the comfortable one, either way (rad)."""
GAP = 0.045
"""Least distance between the things of a scene, for the fingers."""
SIDE, CENTER = 0.2, 0.08
"""A place is "left" beyond the first, "in the middle" within the second distance of the x axis."""
NEAR, FAR = 0.35, 0.65
"""Shares of the reachable ring that are "near" and "far"."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """`N` scenes and their goals; meters and radians, yaw counterclockwise from above."""

    position: Floats
    """[N, 3, 3] the middle of each thing's foot, before."""
    yaw: Floats
    """[N, 3] where its front points, before."""
    final_position: Floats
    """[N, 3, 3] after."""
    final_yaw: Floats
    """[N, 3]"""
    radius: Floats
    """[N, 3]; zero where there is no such thing."""
    height: Floats
    """[N, 3]"""
    category: Ints
    """[N, 3] index into the vocabulary's categories, -1 where there is none."""
    goal: Ints
    """[N] index into `GOALS`."""
    direction: Ints
    """[N] of the motion or, for `facing`, of the front, into `DIRECTIONS`; -1 if none is named."""
    distance: Floats
    """[N] of the motion, a whole number of centimeters; 0 if none is named."""
    relation: Ints
    """[N] index into `RELATIONS`; -1 if none."""
    turn: Floats
    """[N] of the target, counterclockwise from above."""
    tool_turn: Floats
    """[N] of the tool from its comfortable yaw at the target, where it first grasps or touches."""
    resting: Floats
    """[N, 3] where the target of a swap waits until its new place is free."""

    def __len__(self) -> int:
        return len(self.goal)

    def rows(self, keep: Ints | Bools) -> Scene:
        """Those scenes."""
        return Scene(*(getattr(self, field.name)[keep] for field in fields(self)))


def draw(arm: Arm, template: str, count: int, random: np.random.Generator) -> Scene:
    """`count` scenes that could be feasible."""
    found: list[Scene] = []
    missing = count
    while missing > 0:
        batch = _Draft(arm, load_vocabulary(), 2 * missing + 16, random)
        _TEMPLATES[template](batch)
        scene = batch.finish()
        found.append(scene.rows(np.flatnonzero(batch.good)[:missing]))
        missing -= len(found[-1])
    return Scene(
        *(np.concatenate([getattr(s, field.name) for s in found]) for field in fields(Scene))
    )


class _Draft:
    """Arrays of scenes in the making, and which are still `good`."""

    def __init__(
        self, arm: Arm, words: Vocabulary, count: int, random: np.random.Generator
    ) -> None:
        self.arm, self.words, self.count, self.random = arm, words, count, random
        self.good = np.ones(count, np.bool_)
        self.position: Floats = np.zeros((count, 3, 3))
        self.yaw: Floats = np.zeros((count, 3))
        self.final = np.zeros((count, 3, 3))
        self.radius, self.height = np.zeros((count, 3)), np.zeros((count, 3))
        self.category = np.full((count, 3), -1)
        self.goal = np.zeros(count, np.int64)
        self.direction, self.relation = np.full(count, -1), np.full(count, -1)
        self.distance, self.turn = np.zeros(count), np.zeros(count)
        self.tool_turn: Floats = random.uniform(-1.4, 1.4, count)
        self.resting: Floats = np.zeros((count, 3))

    def thing(self, slot: int, role: str, rows: Bools | None = None, front: bool = False) -> None:
        """Draw kind, size and turn of the thing in a slot."""
        choices = self.words.with_role(role, front)
        kind = choices[self.random.integers(len(choices), size=self.count)]
        widths = np.array([category.width for category in self.words.categories])[kind]
        heights = np.array([category.height for category in self.words.categories])[kind]
        rows = np.ones(self.count, np.bool_) if rows is None else rows
        share = self.random.uniform(size=(2, self.count))
        width = widths[:, 0] + share[0] * (widths[:, 1] - widths[:, 0])
        height = heights[:, 0] + share[1] * (heights[:, 1] - heights[:, 0])
        self.category[rows, slot] = kind[rows]
        self.radius[rows, slot] = width[rows] / 2
        self.height[rows, slot] = height[rows]
        self.yaw[rows, slot] = self.random.uniform(-np.pi, np.pi, self.count)[rows]

    def spot(self) -> Floats:
        """[N, 3] places on the table, even over the reachable ring."""
        low, high = self.arm.reach_radius
        radius = np.sqrt(self.random.uniform(low**2, high**2, self.count))
        angle = self.random.uniform(-self.arm.reach_angle, self.arm.reach_angle, self.count)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)

    def within_reach(self, place: Floats) -> Bools:
        """[N] whether places are in the reachable ring."""
        radius = np.linalg.norm(place[:, :2], axis=1)
        angle = np.abs(np.arctan2(place[:, 1], place[:, 0]))
        low, high = self.arm.reach_radius
        return np.asarray((radius >= low) & (radius <= high) & (angle <= self.arm.reach_angle))

    def displace(self, directions: int, least: int, most: int) -> None:
        """Draw a direction and a whole number of centimeters for the target."""
        self.direction = self.random.integers(directions, size=self.count)
        self.distance = self.random.integers(least, most + 1, self.count) / 100
        self.final[:, TARGET] = self.position[:, TARGET] + self.along(self.direction, self.distance)

    def along(self, direction: Ints, distance: Floats) -> Floats:
        """[N, 3] a displacement of the target."""
        angle = headings(direction, self.position[:, TARGET])
        return np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1) * distance[:, None]

    def keep(self, condition: Bools) -> None:
        """Give up the others."""
        self.good &= condition

    def apart(self, a: Floats, b: Floats, first: int, second: int, gap: float = GAP) -> None:
        """Keep scenes in which two things at these places [N, 3] have a gap between them."""
        between = np.linalg.norm((a - b)[:, :2], axis=1)
        present = (self.radius[:, first] > 0) & (self.radius[:, second] > 0)
        needed = self.radius[:, first] + self.radius[:, second] + gap
        self.keep(~present | (between >= needed))

    def comfortable(self, place: Floats, tool_yaw: Floats, most: float = GRIPPER_TURN) -> None:
        """Keep scenes in which this yaw of the tool is comfortable at this place."""
        at_ease = np.arctan2(place[:, 1], place[:, 0]) + posture_yaw(self.arm)
        self.keep(np.abs(wrapped(tool_yaw - at_ease)) <= most)

    def obstruct(self, share: float) -> None:
        """Put a tall thing between start and end of the target in this share of the scenes."""
        rows = self.random.uniform(size=self.count) < share
        self.thing(OBSTACLE, "obstacle", rows)
        start, end = self.position[:, TARGET], self.final[:, TARGET]
        middle = start + self.random.uniform(0.25, 0.75, (self.count, 1)) * (end - start)
        place = middle + self.random.normal(0, 0.05, (self.count, 3)) * [1, 1, 0]
        place[:, 2] = 0
        self.position[rows, OBSTACLE] = self.final[rows, OBSTACLE] = place[rows]
        self.apart(place, start, OBSTACLE, TARGET, 0.09)
        self.apart(place, end, OBSTACLE, TARGET, 0.09)
        self.apart(place, self.position[:, OTHER], OBSTACLE, OTHER, 0.09)
        # Nor where the arm's own base stands.
        self.keep(~rows | (np.linalg.norm(place[:, :2], axis=1) > 0.2))

    def finish(self) -> Scene:
        """The scenes, good or not."""
        final_yaw = self.yaw.copy()
        final_yaw[:, TARGET] += self.turn
        return Scene(
            position=self.position,
            yaw=self.yaw,
            final_position=self.final,
            final_yaw=wrapped(final_yaw),
            radius=self.radius,
            height=self.height,
            category=self.category,
            goal=self.goal,
            direction=self.direction,
            distance=self.distance,
            relation=self.relation,
            turn=self.turn,
            tool_turn=self.tool_turn,
            resting=self.resting,
        )


def _pick_place(draft: _Draft, turning: bool = False) -> None:
    """A thing goes a distance, beside or into another, or to a part of the table."""
    draft.thing(TARGET, "item")
    draft.position[:, TARGET] = draft.spot()
    draft.displace(len(COMPASS) + 2, 8, 45)
    kinds = ("relative", "region") if turning else ("relative", "reference", "receive", "region")
    draft.goal = np.array([GOALS.index(kind) for kind in kinds])[
        draft.random.integers(len(kinds), size=draft.count)
    ]
    named = draft.goal != GOALS.index("relative")
    if not turning:
        _beside(draft, draft.goal == GOALS.index("reference"))
        _receive(draft, draft.goal == GOALS.index("receive"))
    region = draft.goal == GOALS.index("region")
    place = draft.spot()
    draft.final[region, TARGET] = place[region]
    draft.keep(~region | (region_of(draft.arm, place) >= 0))
    draft.direction[named], draft.distance[named] = -1, 0
    moved = np.linalg.norm(draft.final[:, TARGET] - draft.position[:, TARGET], axis=1)
    draft.keep(draft.within_reach(draft.final[:, TARGET]) & (moved > 0.07))
    _turn_hand(draft, turning)
    draft.obstruct(0.5)


def _beside(draft: _Draft, rows: Bools) -> None:
    """The target ends beside another thing that may be picked up or pushed."""
    draft.thing(OTHER, "pushable", rows)
    place = draft.spot()
    relation = draft.random.integers(4, size=draft.count)
    angle = np.array([2, 6, 4, 0])[relation] * (np.pi / 4)
    gap = draft.random.uniform(GAP, 0.1, draft.count)
    reach = draft.radius[:, TARGET] + draft.radius[:, OTHER] + gap
    offset = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1) * reach[:, None]
    draft.position[rows, OTHER] = draft.final[rows, OTHER] = place[rows]
    draft.final[rows, TARGET] = (place + offset)[rows]
    draft.relation[rows] = relation[rows]
    draft.apart(draft.position[:, TARGET], place, TARGET, OTHER)


def _receive(draft: _Draft, rows: Bools) -> None:
    """The target ends in a container or on a surface."""
    inside = draft.random.uniform(size=draft.count) < 0.6
    place = draft.spot()
    for choice, role, relation in ((inside, "container", "inside"), (~inside, "surface", "on")):
        chosen = rows & choice
        draft.thing(OTHER, role, chosen)
        draft.relation[chosen] = RELATIONS.index(relation)
    draft.position[rows, OTHER] = draft.final[rows, OTHER] = place[rows]
    rest = place.copy()
    rest[:, 2] = np.where(inside, 0.01, draft.height[:, OTHER])
    draft.final[rows, TARGET] = rest[rows]
    draft.apart(draft.position[:, TARGET], place, TARGET, OTHER)


def _turn_hand(draft: _Draft, turning: bool) -> None:
    """The tool's yaw at the start, so that it is comfortable there and where the target ends."""
    start = np.arctan2(draft.position[:, TARGET, 1], draft.position[:, TARGET, 0])
    end = np.arctan2(draft.final[:, TARGET, 1], draft.final[:, TARGET, 0])
    if turning:
        sign = draft.random.choice([-1, 1], draft.count)
        draft.turn = sign * np.deg2rad(15.0 * draft.random.integers(2, 13, draft.count))
    else:
        # Carried without turning it where that is comfortable, else as far as needed.
        wanted = start - end
        draft.turn = np.clip(draft.tool_turn + wanted, -1.5, 1.5) - draft.tool_turn - wanted
    draft.keep(np.abs(draft.tool_turn + draft.turn + start - end) <= GRIPPER_TURN)


def _rotate_reposition(draft: _Draft) -> None:
    _pick_place(draft, turning=True)


def _rotate_toward(draft: _Draft) -> None:
    """A thing with a front is turned where it stands until the front faces a direction."""
    draft.goal[:] = GOALS.index("facing")
    draft.thing(TARGET, "item", front=True)
    draft.position[:, TARGET] = draft.final[:, TARGET] = draft.spot()
    draft.direction = draft.random.integers(len(COMPASS) + 2, size=draft.count)
    sign = draft.random.choice([-1, 1], draft.count)
    draft.turn = sign * draft.random.uniform(np.deg2rad(25), np.deg2rad(175), draft.count)
    facing = headings(draft.direction, draft.position[:, TARGET])
    draft.yaw[:, TARGET] = wrapped(facing - draft.turn)
    draft.tool_turn = draft.random.uniform(-GRIPPER_TURN, GRIPPER_TURN, draft.count)
    draft.keep(np.abs(draft.tool_turn + draft.turn) <= GRIPPER_TURN)


def _push(draft: _Draft) -> None:
    """A thing is pushed in a straight line by the closed gripper behind it."""
    draft.goal[:] = GOALS.index("relative")
    draft.thing(TARGET, "pushable")
    draft.position[:, TARGET] = draft.spot()
    draft.displace(len(COMPASS) + 2, 5, 35)
    behind = draft.position[:, TARGET] - draft.along(
        draft.direction, draft.radius[:, TARGET] + 0.05
    )
    draft.keep(draft.within_reach(draft.final[:, TARGET]) & draft.within_reach(behind))
    # The fingers stand across the push: of the two ways to hold them so, the more comfortable one.
    angle = headings(draft.direction, draft.position[:, TARGET])
    here = np.arctan2(draft.position[:, TARGET, 1], draft.position[:, TARGET, 0])
    away = wrapped(angle - here - posture_yaw(draft.arm))
    draft.tool_turn = np.where(np.abs(away) > np.pi / 2, wrapped(away + np.pi), away)
    for place in (behind, draft.final[:, TARGET]):
        draft.comfortable(place, here + posture_yaw(draft.arm) + draft.tool_turn, 1.9)


def _pull(draft: _Draft) -> None:
    """A thing is gripped and drawn over the table, towards the robot or to its side."""
    draft.goal[:] = GOALS.index("relative")
    draft.thing(TARGET, "item")
    draft.position[:, TARGET] = draft.spot()
    draft.displace(INWARD + 1, 5, 35)
    angle = headings(draft.direction, draft.position[:, TARGET])
    toward = wrapped(np.arctan2(draft.position[:, TARGET, 1], draft.position[:, TARGET, 0]) + np.pi)
    draft.keep(np.abs(wrapped(angle - toward)) <= np.deg2rad(100))
    draft.keep(draft.within_reach(draft.final[:, TARGET]))
    start = toward - np.pi + posture_yaw(draft.arm) + draft.tool_turn
    draft.comfortable(draft.final[:, TARGET], start)


def _swap(draft: _Draft) -> None:
    """Two things change places; the target waits at a third until its new one is free."""
    draft.goal[:] = GOALS.index("swap")
    draft.thing(TARGET, "item")
    draft.thing(OTHER, "item")
    draft.position[:, TARGET], draft.position[:, OTHER] = draft.spot(), draft.spot()
    draft.final[:, TARGET] = draft.position[:, OTHER]
    draft.final[:, OTHER] = draft.position[:, TARGET]
    draft.apart(draft.position[:, TARGET], draft.position[:, OTHER], TARGET, OTHER, 0.08)
    gap = np.linalg.norm(draft.position[:, TARGET] - draft.position[:, OTHER], axis=1)
    draft.keep((gap < 0.6) & (draft.category[:, TARGET] != draft.category[:, OTHER]))
    draft.resting = draft.spot()
    for slot in (TARGET, OTHER):
        draft.apart(draft.position[:, slot], draft.resting, slot, TARGET, 0.08)
        away = np.linalg.norm(draft.position[:, slot] - draft.resting, axis=1)
        draft.keep(away < 0.5)
    draft.tool_turn = draft.random.uniform(-0.9, 0.9, draft.count)


def region_of(arm: Arm, place: Floats) -> Ints:
    """[N] the part of the table that places [N, 3] are in, into the vocabulary's regions, or -1.

    A place that is both beside and near or far counts as the side.
    """
    low, high = arm.reach_radius
    share = (np.linalg.norm(place[:, :2], axis=1) - low) / (high - low)
    y = place[:, 1]
    ahead = place[:, 0] > 0
    conditions = [y > SIDE, y < -SIDE, share < NEAR, share > FAR, (np.abs(y) < CENTER) & ahead]
    return np.select(conditions, [0, 1, 2, 3, 4], -1)


_TEMPLATES: dict[str, Callable[[_Draft], None]] = {
    "pick_place": _pick_place,
    "push": _push,
    "pull": _pull,
    "rotate_reposition": _rotate_reposition,
    "rotate_toward": _rotate_toward,
    "swap": _swap,
}
