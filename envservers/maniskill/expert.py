"""The expert: goes a planned way with displacements of the hand, from wherever noise has taken it.

At the planners' own pace most episodes would end before their way does, so the hand is sent to a
place a little ahead on it, not to the next step's.

What is held never sits in the fingers as it did in the plan. Where it has to fit into something, it
is therefore the thing that is led along the way that it went in the plan, wherever that takes the
hand; each place where the plan came to rest is reached before the next is headed for; and the last
of the way is straight, as many a plan jams there.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.planner import Motion, Planner
from envservers.maniskill.robots import Robot
from envservers.maniskill.rotations import (
    conjugate,
    fixed_angles,
    product,
    rotation_vector,
    turned,
)

_GAIN = 1.8
"""The hand goes less far than it is sent."""
_REST = (0.0003, 0.003)
"""Meters and radians: a plan that moves the hand by less in a step is at rest."""
_BEFORE = (0.01, 0.1)
"""Meters aside and radians: what is nearer to a goal's axis is in front of it."""
_SPACING = 0.002
"""Meters between places of a straight way."""
_HOLD = 4
"""Control steps that the gripper is given to open or close."""


class _Care(NamedTuple):
    """How exactly a way is kept to; meters and radians."""

    ahead: tuple[float, float]
    """What is nearer on the way is passed."""
    there: tuple[float, float]
    """The end of a stretch is reached."""
    patience: int
    """Control steps without coming nearer after which a place counts as reached."""


_QUICK = _Care(ahead=(0.03, 0.3), there=(0.004, 0.04), patience=12)
_CAREFUL = _Care(ahead=(0.015, 0.15), there=(0.003, 0.03), patience=12)
_PRECISE = _Care(ahead=(0.01, 0.1), there=(0.0005, 0.005), patience=25)


class _Stretch(NamedTuple):
    """Of the way, up to a change of the gripper or a rest."""

    way: NDArray[np.float64]
    """[n, 7] poses of what is led."""
    gripper: float
    led: str = ""
    """What is: ManiSkill's name of a thing; empty: the hand."""
    care: _Care = _QUICK


class Progress(NamedTuple):
    """How far the way is gone."""

    stretch: int = 0
    """Of those that the way is cut into."""
    place: int = 0
    """In the stretch."""
    held: int = 0
    """Control steps since the gripper was told anew."""
    waited: int = 0
    """Control steps at this place."""


class Expert:
    """Of one slot.

    Args:
        planner: finds each episode's way.
        robot: whose channels the actions are.
    """

    def __init__(self, planner: Planner, robot: Robot) -> None:
        self._planner, self._robot = planner, robot
        self._episode = "", 0
        self._motion: list[_Stretch] | None = None
        self._advice: NDArray[np.float32] | None = None
        self.progress = Progress()

    def begin(self, task: str, seed: int) -> None:
        """An episode; its way is planned when somebody asks."""
        self._episode, self._motion, self._advice = (task, seed), None, None
        self.progress = Progress()

    def look_anew(self) -> None:
        """Something has happened since."""
        self._advice = None

    def act(
        self,
        base: NDArray[np.float64],
        hand: NDArray[np.float64],
        where: Callable[[str], NDArray[np.float64]],
    ) -> NDArray[np.float32]:
        """[7] the next action; the same one until something has happened.

        Args:
            base: [7] pose of the arm's base in the world.
            hand: [7] likewise.
            where: [7] likewise, of a thing by ManiSkill's name.
        """
        if self._motion is None:
            self._motion = _stretches(self._planner.solve(*self._episode), hand)
        if self._advice is None:
            led = self._motion[self.progress.stretch].led
            self.progress = self._go_on(where(led) if led else hand)
            stretch = self._motion[self.progress.stretch]
            target = stretch.way[self.progress.place]
            if stretch.led:
                target = _carrying(hand, where(stretch.led), target)
            move = self._toward(target, base, hand)
            self._advice = np.concatenate([move, [stretch.gripper]]).astype(np.float32)
        return self._advice

    def _go_on(self, now: NDArray[np.float64]) -> Progress:
        """The progress one control step later, what is led being at `now`."""
        assert self._motion is not None
        stretch, place, held, waited = self.progress
        way, gripper, _, care = self._motion[stretch]
        if held < _HOLD and stretch:
            return Progress(stretch, place, held + 1, waited)
        last = len(way) - 1
        while place < last and _distance(way[place], now, care.ahead) < 1:
            place, waited = place + 1, 0
        waited += 1
        if place < last:
            # Where something is in the way, the hand is sent further: it pushes.
            place += waited > care.patience
        elif stretch < len(self._motion) - 1 and (
            _distance(way[-1], now, care.there) < 1 or waited > care.patience
        ):
            same = self._motion[stretch + 1].gripper == gripper
            return Progress(stretch + 1, 0, _HOLD if same else 1, 0)
        return Progress(stretch, place, held + 1, waited)

    def _toward(
        self, target: NDArray[np.float64], base: NDArray[np.float64], hand: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """[6] displacement and angles in the frame of the base, within what a step may be."""
        back = conjugate(base[3:])
        shift = _GAIN * turned(back, target[:3] - hand[:3])
        turn = _GAIN * turned(back, rotation_vector(product(target[3:], conjugate(hand[3:]))))
        # All of a step is made smaller, so that the way stays straight.
        shift *= min(1.0, self._robot.reach / max(float(np.abs(shift).max()), 1e-9))
        turn *= min(1.0, self._robot.turn / max(float(np.linalg.norm(turn)), 1e-9))
        return np.concatenate([shift, fixed_angles(turn)])


def _stretches(motion: Motion | None, hand: NDArray[np.float64]) -> list[_Stretch]:
    """The way, cut; where there is none, the hand stays where it is."""
    if motion is None:
        return [_Stretch(hand[None], 1.0)]
    changes = np.flatnonzero(np.diff(motion.gripper)) + 1
    bounds = [0, *changes.tolist(), len(motion.gripper)]
    found: list[_Stretch] = []
    for start, end in itertools.pairwise(bounds):
        gripper = float(motion.gripper[start])
        held, steps = Counter(motion.held[start:end]).most_common(1)[0]
        if motion.goal is None or not held or 2 * steps < end - start:
            found.append(_Stretch(motion.poses[start:end], gripper))
            continue
        way = motion.objects[held][start:end]
        legs = np.split(way, _rests(motion.poses[start:end]))
        led = [_Stretch(leg, gripper, held, _CAREFUL) for leg in legs]
        found += _straightened(led, motion.goal)
    return found


def _straightened(legs: list[_Stretch], goal: NDArray[np.float64]) -> list[_Stretch]:
    """The legs of a thing's way, straight into the goal from where the first sets out before it."""
    back = conjugate(goal[3:])
    for number, leg in enumerate(legs):
        x, *aside = turned(back, leg.way[0, :3] - goal[:3])
        angle = float(np.linalg.norm(rotation_vector(product(back, leg.way[0, 3:]))))
        if x < 0 and np.linalg.norm(aside) < _BEFORE[0] and angle < _BEFORE[1]:
            depths = np.linspace(x, 0.0, 2 + int(-x / _SPACING))
            axis = turned(goal[3:], np.array([1.0, 0.0, 0.0]))
            straight = np.concatenate(
                [goal[:3] + depths[:, None] * axis, np.tile(goal[3:], (len(depths), 1))], axis=1
            )
            # Exactly before it, then in.
            exact = [leg._replace(way=way, care=_PRECISE) for way in (straight[:1], straight)]
            return [*legs[:number], *exact]
    return legs


def _rests(poses: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices, after the first, at which the hand sets out again."""
    unit = np.array([_distance(a, b, _REST) for a, b in itertools.pairwise(poses)])
    moves = unit >= 1
    return np.flatnonzero(moves[1:] & ~moves[:-1]) + 1


def _carrying(
    hand: NDArray[np.float64], thing: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[7] where the hand has to be for what it holds to be at the target."""
    turn = product(target[3:], conjugate(thing[3:]))
    place = target[:3] + turned(turn, hand[:3] - thing[:3])
    return np.concatenate([place, product(turn, hand[3:])])


def _distance(
    one: NDArray[np.float64], other: NDArray[np.float64], unit: tuple[float, float]
) -> float:
    """The larger of distance and angle between two poses, in these units."""
    angle = np.linalg.norm(rotation_vector(product(one[3:], conjugate(other[3:]))))
    return max(float(np.linalg.norm(one[:3] - other[:3])) / unit[0], float(angle) / unit[1])
