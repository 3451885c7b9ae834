"""Road layouts: center lines, the lane to drive in, and what stands beside and on the road.

World frame: meters, x and y in the ground plane, z up; headings counterclockwise from x. Right-hand
traffic: a road has one lane each way (or two, for a change of lanes), the car drives on the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANE = 3.5
"""Width of a lane, meters."""
SPACING = 1.0
"""Meters between the points of a line."""
KINDS = ("follow", "turn_left", "turn_right", "straight_on", "change_left", "change_right", "stop")
INSTRUCTIONS = {
    "follow": "follow the road",
    "turn_left": "turn left at the junction",
    "turn_right": "turn right at the junction",
    "straight_on": "go straight on at the junction",
    "change_left": "change to the left lane",
    "change_right": "change to the right lane",
    "stop": "stop behind the {color} car",
}
CAR_COLORS = {
    "red": (0.80, 0.10, 0.08),
    "blue": (0.12, 0.25, 0.75),
    "white": (0.92, 0.92, 0.92),
    "yellow": (0.95, 0.80, 0.10),
}
_APPROACH, _BEYOND, _TURN_RADIUS = 25.0, 40.0, 8.0
_ARM = 60.0
"""Meters from a junction to the end of each road."""
_STOP_GAP = 8.0
"""Meters from the car's center to that of the car before it, where it stops."""


@dataclass(frozen=True)
class Box:
    """Something upright: a car, a house."""

    center: tuple[float, float]
    heading: float
    size: tuple[float, float, float]
    """Length, width, height in meters."""
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Road:
    """One layout."""

    kind: str
    instruction: str
    lines: tuple[NDArray[np.float64], ...]
    """Center lines of all roads, each [n, 2]."""
    width: float
    """Of the asphalt, meters."""
    path: NDArray[np.float64]
    """[n, 2] where the car shall drive, points `SPACING` apart."""
    boxes: tuple[Box, ...]
    speed: float
    """Limit, m/s."""
    stops: bool
    """Whether the car shall stand still at the end of the path."""


def sample_road(random: np.random.Generator) -> Road:
    """Draw a layout."""
    kind = str(random.choice(KINDS))
    instruction, boxes, width = INSTRUCTIONS[kind], [], 2 * LANE
    speed = float(random.uniform(5, 11))
    if kind in ("turn_left", "turn_right", "straight_on"):
        lines, path = _junction(kind)
        speed = min(speed, 7.0)
    elif kind.startswith("change"):
        width = 4 * LANE
        lines, path = _lane_change(kind, random)
    else:
        lines = (_curve(random),)
        path = offset_line(lines[0], -LANE / 2)
    if kind == "stop":
        color = str(random.choice(list(CAR_COLORS)))
        instruction = instruction.format(color=color)
        place = int(random.integers(30, 50))
        gap = round(_STOP_GAP / SPACING)
        heading = headings(path)[place]
        at = (float(path[place, 0]), float(path[place, 1]))
        boxes.append(Box(at, float(heading), (4.4, 1.8, 1.5), CAR_COLORS[color]))
        path = path[: place - gap]
    boxes += _houses(lines, width, random)
    return Road(kind, instruction, lines, width, path, tuple(boxes), speed, kind == "stop")


def headings(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] direction of a line at each of its points."""
    ahead = np.gradient(line, axis=0)
    return np.arctan2(ahead[:, 1], ahead[:, 0])


def offset_line(line: NDArray[np.float64], left: float) -> NDArray[np.float64]:
    """[n, 2] the line moved `left` meters to its left."""
    angle = headings(line)
    return line + left * np.stack([-np.sin(angle), np.cos(angle)], axis=1)


def distance_to(line: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """[k] meters from points [k, 2] to a line's nearest piece, signed: positive on its left."""
    start, piece = line[:-1], np.diff(line, axis=0)
    along = np.einsum("kni,ni->kn", points[:, None] - start, piece) / (piece**2).sum(axis=1)
    foot = start + np.clip(along, 0, 1)[..., None] * piece
    away = points[:, None] - foot
    gaps = np.linalg.norm(away, axis=2)
    nearest = gaps.argmin(axis=1)
    rows = np.arange(len(points))
    direction, offset = piece[nearest], away[rows, nearest]
    side = np.sign(direction[:, 0] * offset[:, 1] - direction[:, 1] * offset[:, 0])
    return gaps[rows, nearest] * np.where(side == 0, 1.0, side)


def _curve(random: np.random.Generator) -> NDArray[np.float64]:
    """[n, 2] a road that bends this way and that, from the origin along x at first."""
    curvature = np.concatenate(
        [np.zeros(12)]
        + [np.full(25, random.choice([0.0, 1.0, -1.0]) / random.uniform(18, 60)) for _ in range(4)]
    )
    curvature = np.convolve(curvature, np.ones(9) / 9, mode="same")
    angle = np.cumsum(curvature) * SPACING
    steps = SPACING * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _segment(start: tuple[float, float], end: tuple[float, float]) -> NDArray[np.float64]:
    count = int(np.hypot(end[0] - start[0], end[1] - start[1]) / SPACING) + 1
    return np.linspace(start, end, count)


def _junction(kind: str) -> tuple[tuple[NDArray[np.float64], ...], NDArray[np.float64]]:
    """Two roads that cross `_APPROACH` ahead, and the way through."""
    middle = _APPROACH
    lines = (
        _segment((-10.0, 0.0), (middle + _ARM, 0.0)),
        _segment((middle, -_ARM), (middle, _ARM)),
    )
    right = -LANE / 2
    if kind == "straight_on":
        return lines, _segment((0.0, right), (middle + _BEYOND, right))
    sign = 1.0 if kind == "turn_left" else -1.0
    # The lane on the right of the road that is turned into.
    leaving = middle + LANE / 2 * sign
    radius = _TURN_RADIUS if sign > 0 else _TURN_RADIUS - LANE / 2
    start = leaving - radius
    angle = np.linspace(0, np.pi / 2, int(radius * np.pi / 2 / SPACING) + 2)
    arc = np.stack([start + radius * np.sin(angle), right + sign * radius * (1 - np.cos(angle))], 1)
    after = _segment((leaving, float(arc[-1, 1])), (leaving, sign * _BEYOND))
    return lines, np.concatenate([_segment((0.0, right), (start, right)), arc[1:-1], after])


def _lane_change(
    kind: str, random: np.random.Generator
) -> tuple[tuple[NDArray[np.float64], ...], NDArray[np.float64]]:
    """A straight road with two lanes each way, and a smooth change between the two on the right."""
    line = _segment((-10.0, 0.0), (100.0, 0.0))
    inner, outer = -LANE / 2, -3 * LANE / 2
    first, last = (outer, inner) if kind == "change_left" else (inner, outer)
    x = np.arange(0.0, 80.0, SPACING)
    start = random.uniform(10, 25)
    share = np.clip((x - start) / 25.0, 0, 1)
    y = first + (last - first) * (3 * share**2 - 2 * share**3)
    return (line,), np.stack([x, y], axis=1)


def _houses(
    lines: tuple[NDArray[np.float64], ...], width: float, random: np.random.Generator
) -> list[Box]:
    """Beside the roads, on none of them."""
    houses: list[Box] = []
    for _ in range(40):
        line = lines[random.integers(len(lines))]
        place = int(random.integers(len(line)))
        length, depth, height = random.uniform([6, 6, 4], [14, 10, 12]).tolist()
        away = (width / 2 + 4 + depth / 2 + random.uniform(0, 6)) * random.choice([-1, 1])
        center = offset_line(line, float(away))[place]
        reach = width / 2 + np.hypot(length, depth) / 2 + 0.5
        if any(abs(distance_to(other, center[None])[0]) < reach for other in lines):
            continue
        heading = float(headings(line)[place])
        color = tuple(random.uniform(0.3, 0.85, 3).tolist())
        at = (float(center[0]), float(center[1]))
        houses.append(Box(at, heading, (length, depth, height), color))
    return houses[:12]
