"""Ways of our own, drawn from where things lie: of tasks that ManiSkill's planners do not solve.

The hand points down throughout, and turns about the vertical alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OPEN, CLOSED = 1.0, -1.0
_STEP = 0.01, 0.1
"""Meters and radians between places of a way, at most."""
_ABOVE = 0.13
"""Meters over the table at which nothing is in the way of what is carried."""

Poses = Mapping[str, NDArray[np.float64]]
"""[7] in the world, position (m), then a quaternion: of everything by ManiSkill's name, and of the
arm's `base` and `hand`."""


class Place(NamedTuple):
    """Where the hand is sent, and what the gripper is told meanwhile."""

    position: NDArray[np.float64]
    """[3] m."""
    turn: float
    """About the vertical, rad; at 0 the fingers close along the world's y."""
    gripper: float


# StackPyramid: cubes of 4 cm. Two centers at most 6.16 cm apart count as side by side.
_HALF = 0.02
_TOGETHER = 0.06
_BESIDE = 0.048
"""Where a cube is put beside another: nearer, it might be set down on the other's edge."""
_ROOM = 0.08
"""Between the centers of a cube that fingers hold and another."""


def stack_pyramid(poses: Poses) -> Iterator[Place]:
    """Red beside green, then blue on both."""
    red, green, blue = (poses[name] for name in ("cubeA", "cubeB", "cubeC"))
    beside, turn = red[:3], _turn_of(poses["hand"])
    if np.linalg.norm(red[:2] - green[:2]) > _TOGETHER:
        turn = _clear_turn(red, turn, green, blue)
        yield from _taken(red[:3], turn)
        beside, angle = _free_side(green, red, blue)
        turn = _near(angle, turn)
        yield from _put(beside, turn)
    turn = _clear_turn(blue, turn, beside, green)
    yield from _taken(blue[:3], turn)
    yield from _put((beside + green[:3]) / 2 + [0.0, 0.0, 2 * _HALF], turn)


def _free_side(
    cube: NDArray[np.float64], coming: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """[3] the nearest place beside a cube that another leaves free, and the hand's turn there.

    The fingers close along the cube's side, out of the gap.
    """
    angles = _yaw(cube) + np.arange(4) * np.pi / 2
    sides = [cube[:3] + _BESIDE * np.array([np.cos(a), np.sin(a), 0.0]) for a in angles]

    def cost(number: int) -> float:
        crowded = np.linalg.norm(sides[number][:2] - other[:2]) < _ROOM
        return float(np.linalg.norm(sides[number] - coming[:3])) + crowded

    best = min(range(4), key=cost)
    return sides[best], float(angles[best])


def _clear_turn(cube: NDArray[np.float64], now: float, *others: NDArray[np.float64]) -> float:
    """Of the two turns at which the fingers hold a cube, the one that others leave free."""

    def cost(turn: float) -> float:
        closing = np.array([-np.sin(turn), np.cos(turn)])
        fingers = [cube[:2] + side * 2 * _HALF * closing for side in (-1.0, 1.0)]
        room = min(np.linalg.norm(f - other[:2]) for f in fingers for other in others)
        return abs(turn - now) - 100.0 * min(float(room), _ROOM)

    return min((_near(_yaw(cube) + quarter * np.pi / 2, now) for quarter in (0, 1)), key=cost)


# PullCubeTool: a handle along x from the tool's origin, a hook at its end toward y.
_GRIP = 0.02
_HOOK = 0.15
"""From the origin to the side of the hook that pulls."""
_END, _SIDE = 0.2, 0.1
"""From the origin how far the tool reaches along x, and toward y."""
_MIDDLE = 0.0625
"""From the handle to the middle of what the hook reaches over."""
_CORNER = 0.03
"""From a cube's center to where its corners may be."""
_BACK = -0.25
"""The hand's x in the world at which the tool's end is before any cube."""
_CLOSE = 0.5
"""From the base to where the cube is pulled; ManiSkill asks for less than 0.6."""


def pull_cube_tool(poses: Poses) -> Iterator[Place]:
    """The tool slides past the cube, its hook behind it, and back."""
    tool, cube, base = (poses[name] for name in ("l_shape_tool", "cube", "base"))
    grip = tool[:3] + np.array([_GRIP, 0.0, 0.0])
    yield from _taken(grip, 0.0, lift=False)
    away = cube[:2] - base[:2]
    turn = float(np.arctan2(away[1], away[0]))
    out = away / np.linalg.norm(away)
    left = np.array([-out[1], out[0]])

    def slid(ahead: float, aside: float) -> Place:
        """The tool's origin, turned toward the cube, seen from the cube."""
        where = cube[:2] + (ahead + _GRIP) * out + aside * left
        return Place(np.array([*where, grip[2]]), turn, CLOSED)

    # With a few centimeters to spare, as corners of the way are cut.
    behind, clear = _CORNER + 0.02 - _HOOK, -_SIDE - _CORNER - 0.03
    back = min(float(grip[0]), _BACK)
    yield Place(np.array([back, grip[1], grip[2]]), 0.0, CLOSED)
    yield slid(-_END - _CORNER - 0.05, clear)
    yield slid(behind, clear)
    yield slid(behind, -_MIDDLE)
    pull = float(np.linalg.norm(away)) - _CLOSE
    yield slid(behind - pull, -_MIDDLE)


# PokeCube: a peg along x, whose head pushes the cube.
_PEG = 0.12
"""From its middle to its head."""
_TAIL = 0.08
"""From its middle to where it is held: the arm does not reach far enough to hold the middle."""
_SHORT = 0.03
"""Before the mark's middle; ManiSkill allows 0.05."""


def poke_cube(poses: Poses) -> Iterator[Place]:
    """The peg slides in front of the cube, then pushes it onto the mark."""
    peg, cube, goal = (poses[name] for name in ("peg", "cube", "goal_region"))
    grip = peg[:3] - np.array([_TAIL, 0.0, 0.0])
    yield from _taken(grip, 0.0, lift=False)
    yield Place(np.array([grip[0], cube[1], grip[2]]), 0.0, CLOSED)
    end = goal[0] - _SHORT - _HALF - _PEG - _TAIL
    yield Place(np.array([end, cube[1], grip[2]]), 0.0, CLOSED)


# RollBall
_BALL = 0.035
_RUN_UP = 0.06, 0.11
"""Behind the ball's middle, at least and at most: from farther away the hand comes straighter."""
_NEAREST = 0.27
"""From the base to where the hand gets down to the table."""
_FOLLOW = 0.35
"""How far past where the ball lay the hand goes."""


def roll_ball(poses: Poses) -> Iterator[Place]:
    """Closed fingers push the ball toward the mark, and let it roll."""
    ball, goal, base = (poses[name] for name in ("ball", "goal_region", "base"))
    way = goal[:2] - ball[:2]
    way = way / np.linalg.norm(way)
    turn = _near(float(np.arctan2(way[1], way[0])), _turn_of(poses["hand"]), np.pi / 2)
    room = float(np.linalg.norm(ball[:2] - base[:2])) - _NEAREST
    start, end = ball[:2] - np.clip(room, *_RUN_UP) * way, ball[:2] + _FOLLOW * way
    yield Place(np.array([*start, _ABOVE]), turn, CLOSED)
    yield Place(np.array([*start, _BALL]), turn, CLOSED)
    yield Place(np.array([*end, _BALL]), turn, CLOSED)


WAYS: dict[str, Callable[[Poses], Iterator[Place]]] = {
    "StackPyramid-v1": stack_pyramid,
    "PullCubeTool-v1": pull_cube_tool,
    "PokeCube-v1": poke_cube,
    "RollBall-v1": roll_ball,
}


def drawn(
    places: Iterator[Place], hand: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[n, 7] poses of the hand from where it is, and [n] what the gripper is told."""
    first = next(places)
    way = [Place(hand[:3], _turn_of(hand), first.gripper), first, *places]
    poses, gripper = [], []
    for one, other in itertools.pairwise(way):
        shift, turn = other.position - one.position, other.turn - one.turn
        steps = max(
            1.0, np.ceil(float(np.linalg.norm(shift)) / _STEP[0]), np.ceil(abs(turn) / _STEP[1])
        )
        for part in np.arange(1, steps + 1) / steps:
            half = (one.turn + part * turn) / 2
            down = 0.0, np.cos(half), np.sin(half), 0.0
            poses.append(np.concatenate([one.position + part * shift, down]))
            gripper.append(other.gripper)
    return np.stack(poses), np.array(gripper)


def _taken(where: NDArray[np.float64], turn: float, lift: bool = True) -> Iterator[Place]:
    over = np.array([*where[:2], _ABOVE])
    yield Place(over, turn, OPEN)
    yield Place(where, turn, OPEN)
    yield Place(where, turn, CLOSED)
    if lift:
        yield Place(over, turn, CLOSED)


def _put(where: NDArray[np.float64], turn: float) -> Iterator[Place]:
    over = np.array([*where[:2], _ABOVE])
    yield Place(over, turn, CLOSED)
    yield Place(where, turn, CLOSED)
    yield Place(where, turn, OPEN)
    yield Place(over, turn, OPEN)


def _turn_of(hand: NDArray[np.float64]) -> float:
    """About the vertical, rad, of a hand that points down."""
    return float(2 * np.arctan2(hand[5], hand[4]))


def _yaw(pose: NDArray[np.float64]) -> float:
    return float(2 * np.arctan2(pose[6], pose[3]))


def _near(turn: float, now: float, period: float = np.pi) -> float:
    """The same for two fingers, with as little turning as can be."""
    return float(now + (turn - now + period / 2) % period - period / 2)
