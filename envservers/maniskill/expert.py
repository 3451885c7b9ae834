"""The expert: goes a planned way with displacements of the hand, from wherever noise has taken it.

At the planners' own pace most episodes would end before their way does, so the hand is sent to a
place a little ahead on it, not to the next step's.
"""

from __future__ import annotations

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
_AHEAD = (0.03, 0.3)
"""Meters and radians: what is nearer on the way is passed."""
_THERE = (0.004, 0.04)
"""Likewise: the end of a stretch is reached."""
_HOLD = 4
"""Control steps that the gripper is given to open or close."""
_PATIENCE = 12
"""Control steps at the end of a stretch after which it counts as reached."""


class _Stretch(NamedTuple):
    """Of the way, between two changes of the gripper."""

    way: NDArray[np.float64]
    """[n, 7] poses of the hand."""
    gripper: float


class Progress(NamedTuple):
    """How far the way is gone."""

    stretch: int = 0
    """Of those between two changes of the gripper."""
    place: int = 0
    """In the stretch."""
    held: int = 0
    """Control steps since the gripper was told anew."""
    waited: int = 0
    """Control steps at the end of the stretch."""


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

    def act(self, base: NDArray[np.float64], hand: NDArray[np.float64]) -> NDArray[np.float32]:
        """[7] the next action; the same one until something has happened.

        Args:
            base: [7] pose of the arm's base in the world.
            hand: [7] likewise.

        Raises:
            NotImplementedError: for a task without a solution.
        """
        if self._motion is None:
            self._motion = _stretches(self._planner.solve(*self._episode), hand)
        if self._advice is None:
            self.progress = self._go_on(hand)
            stretch = self._motion[self.progress.stretch]
            move = self._toward(stretch.way[self.progress.place], base, hand)
            self._advice = np.concatenate([move, [stretch.gripper]]).astype(np.float32)
        return self._advice

    def _go_on(self, hand: NDArray[np.float64]) -> Progress:
        """The progress one control step later."""
        assert self._motion is not None
        stretch, place, held, waited = self.progress
        way = self._motion[stretch].way
        if held < _HOLD and stretch:
            return Progress(stretch, place, held + 1, waited)
        while place < len(way) - 1 and _distance(way[place], hand, _AHEAD) < 1:
            place += 1
        if place == len(way) - 1:
            waited += 1
            reached = _distance(way[-1], hand, _THERE) < 1 or waited > _PATIENCE
            if reached and stretch < len(self._motion) - 1:
                return Progress(stretch + 1, 0, 1, 0)
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
    """Cut where the gripper is told anew; where there is no way, the hand stays where it is."""
    if motion is None:
        return [_Stretch(hand[None], 1.0)]
    changes = np.flatnonzero(np.diff(motion.gripper)) + 1
    parts = zip(np.split(motion.poses, changes), np.split(motion.gripper, changes), strict=True)
    return [_Stretch(way, float(told[0])) for way, told in parts]


def _distance(
    one: NDArray[np.float64], other: NDArray[np.float64], unit: tuple[float, float]
) -> float:
    """The larger of distance and angle between two poses, in these units."""
    angle = np.linalg.norm(rotation_vector(product(one[3:], conjugate(other[3:]))))
    return max(float(np.linalg.norm(one[:3] - other[:3])) / unit[0], float(angle) / unit[1])
