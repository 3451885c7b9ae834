"""What is true of a table, from the simulator's own state: the judge of questions and programs.

Left, right, in front and behind are those of the fixed camera's picture: it looks back at the arm,
so left is smaller y and in front, nearer to the camera, is larger x. Pure functions of `Facts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.layouts import BLOCKS, Layout
from envservers.tabletop.scene import BASKET_HALF, BASKET_WALL, PLATE_RADIUS, TOWEL_HALF
from envservers.tabletop.tasks import SLOW

ASIDE = 0.045
"""Meters by which centers must differ for a direction to be beyond doubt."""
BESIDE = 0.16
"""Centers farther apart than this are not side by side."""
HAND_AWAY = 0.05
"""Meters from tool to object beyond which the object is let go of."""
ON_TOP, LINE = 0.008, 0.022
"""Meters: error of a resting height, and of a place on a line or a spot."""
_HEAPED = 0.065
"""Meters over the basket's center up to which something is in it, be it on other things there."""


@dataclass(frozen=True)
class Facts:
    """One table at one instant."""

    layout: Layout
    positions: dict[str, NDArray[np.float64]]
    """Present object -> [3] its center."""
    yaws: dict[str, float]
    speeds: dict[str, float]
    """Meters per second; objects that cannot be moved have none."""
    tool: NDArray[np.float64]
    """[4] measured tool pose."""
    opening: float
    """Of the gripper, meters."""

    def offset(self, thing: str, other: str) -> NDArray[np.float64]:
        """[3] from the other's center to the thing's, along the camera's right and towards it.

        The components are: to the right, to the front, up.
        """
        x, y, z = self.positions[thing] - self.positions[other]
        return np.array([y, x, z])


def rests_on(facts: Facts, thing: str, other: str) -> bool:
    """Whether it lies on the other (in it, if that is the basket)."""
    if thing == other or other not in ("towel", "plate", "basket", *BLOCKS):
        return False
    x, y, z = facts.positions[thing] - facts.positions[other]
    yaw, scale = facts.yaws[other], facts.layout.scale[other]
    along = abs(np.cos(yaw) * x + np.sin(yaw) * y)
    across = abs(np.cos(yaw) * y - np.sin(yaw) * x)
    if other == "basket":
        room = (BASKET_HALF - 2 * BASKET_WALL) * scale
        return bool(along < room and across < room and z < _HEAPED)
    resting = facts.layout.half_height(other) + facts.layout.half_height(thing)
    if abs(z - resting) > ON_TOP:
        return False
    if other == "towel":
        return bool(max(along, across) < TOWEL_HALF * scale)
    if other == "plate":
        return bool(np.hypot(x, y) < PLATE_RADIUS * scale)
    return bool(max(along, across) < 0.028)


def on_table(facts: Facts, thing: str) -> bool:
    """Whether it lies on the table itself, not on a towel, thinner than the tolerance as it is."""
    is_low = abs(facts.positions[thing][2] - facts.layout.half_height(thing)) < ON_TOP
    return bool(is_low and not any(rests_on(facts, thing, other) for other in facts.positions))


def left_of(facts: Facts, thing: str, other: str) -> bool:
    """In the fixed camera's picture; false if in doubt."""
    return bool(facts.offset(thing, other)[0] < -ASIDE)


def right_of(facts: Facts, thing: str, other: str) -> bool:
    """In the fixed camera's picture; false if in doubt."""
    return left_of(facts, other, thing)


def in_front_of(facts: Facts, thing: str, other: str) -> bool:
    """Nearer to the fixed camera; false if in doubt."""
    return bool(facts.offset(thing, other)[1] > ASIDE)


def behind(facts: Facts, thing: str, other: str) -> bool:
    """Farther from the fixed camera; false if in doubt."""
    return in_front_of(facts, other, thing)


DIRECTIONS: dict[str, Callable[[Facts, str, str], bool]] = {
    "to the left of": left_of,
    "to the right of": right_of,
    "in front of": in_front_of,
    "behind": behind,
}
OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "in front of": "behind",
    "behind": "in front of",
}


def distance(facts: Facts, thing: str, other: str) -> float:
    """Meters between two centers in the plane of the table."""
    return float(np.linalg.norm((facts.positions[thing] - facts.positions[other])[:2]))


def beside(facts: Facts, thing: str, other: str) -> bool:
    """Whether both lie on the table with nothing but a gap between them."""
    near = distance(facts, thing, other) < BESIDE
    return near and on_table(facts, thing) and on_table(facts, other)


def beside_in(facts: Facts, thing: str, other: str, direction: str) -> bool:
    """Whether it lies beside the other, in that direction and in no other."""
    across, forward, _ = facts.offset(thing, other)
    off = forward if direction.startswith("to the") else across
    is_there = DIRECTIONS[direction](facts, thing, other)
    return bool(beside(facts, thing, other) and abs(off) < ASIDE and is_there)


def at_spot(facts: Facts, thing: str, spot: tuple[float, float]) -> bool:
    """Whether it lies on the table at x, y."""
    off = np.linalg.norm(facts.positions[thing][:2] - spot)
    return bool(off < LINE and on_table(facts, thing))


def in_line(facts: Facts, things: tuple[str, ...]) -> bool:
    """Whether these lie on the table in one row across the picture."""
    forward = [facts.positions[thing][0] for thing in things]
    return np.ptp(forward) < 2 * LINE and all(on_table(facts, thing) for thing in things)


def let_go(facts: Facts, thing: str) -> bool:
    """Whether it is at rest and the hand is away from it."""
    gap = np.linalg.norm(facts.positions[thing] - facts.tool[:3])
    return bool(facts.speeds[thing] < SLOW and gap > HAND_AWAY)


def region(facts: Facts, thing: str) -> str:
    """Where on the table it is, as seen in the fixed camera's picture: `far left`, `center`."""
    x, y, _ = facts.positions[thing]
    depth = "near" if x > 0.40 else "far" if x < 0.27 else ""
    side = "left" if y < -0.08 else "right" if y > 0.08 else ""
    return " ".join(filter(None, (depth, side or ("middle" if depth else "center"))))
