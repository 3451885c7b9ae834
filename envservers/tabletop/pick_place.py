"""Picking something up and putting it somewhere: a closed-loop phase machine on privileged state.

    above -> descend -> close -> lift -> carry -> lower -> release -> retreat
      ^                          |         |                           |
      +------ nothing held ------+---------+-------- not achieved -----+

Adjustable noise makes motions that are neither perfect nor all alike. What is carried where is told
anew at each step (`Handling`); who asks for it (a task's expert, a motion program) is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.control import ACTION_HIGH

HOVER, CARRY = 0.095, 0.125
"""Tool heights above a source before descending, and when carrying."""
OPEN, CLOSED = 1.0, -1.0
PICKING = ("above", "descend", "close", "lift")
"""Phases until it is carried."""
_CLOSE_STEPS, _RELEASE_STEPS = 2, 2
_RETREAT_STEPS = 4


@dataclass(frozen=True)
class ExpertNoise:
    """How badly the expert does; all zero: as well as it can."""

    waypoint_std: float = 0.0
    """Meters: an xy offset (normal) drawn anew for each attempt to grasp and to place."""
    action_std: float = 0.0
    """Normal noise on each motion channel at each step, as a fraction of the channel's bound."""
    hurry: float = 0.0
    """Probability, per step of a descent, of closing (or opening) before it is finished."""
    slowest_pace: float = 1.0
    """Each episode is worked at a pace of its own, uniform between this and 1, as a fraction of the
    channels' bounds."""
    clumsy_steps: int = 0
    """Half of all episodes begin with up to so many control steps at `CLUMSY` noise, from whose
    mishaps (missed, misplaced, dropped) the expert then recovers."""


CLUMSY = ExpertNoise(waypoint_std=0.03, action_std=0.3, hurry=0.1)


@dataclass(frozen=True)
class Handling:
    """What is to be done, and where everything is at this instant."""

    tool: NDArray[np.float64]
    """[4] measured tool pose."""
    commanded: NDArray[np.float64]
    """[4] tool pose to which the next action adds."""
    source: NDArray[np.float64]
    """[3] center of what is carried."""
    source_yaw: float
    grasp_period: float
    """Turns by which the source looks the same to the fingers."""
    target: NDArray[np.float64]
    """[3] where the source's center shall come to be; only x and y are used with `drop_height`."""
    square_to: float | None = None
    """Turn of what leaves no room to turn (the basket's walls); None: placed as it is carried."""
    drop_height: float | None = None
    """Tool height at which to let go; None: where the source hangs just above its target."""

    @property
    def held(self) -> bool:
        """Whether the source is between the fingers."""
        return bool(np.linalg.norm(self.source - self.tool[:3]) < 0.035)

    @property
    def carried_goal(self) -> NDArray[np.float64]:
        """[2] tool position that puts the carried source over the target."""
        return self.target[:2] + (self.tool[:3] - self.source)[:2]

    @property
    def grasp_height(self) -> float:
        """Tool height at which to close the fingers."""
        return max(float(self.source[2]) + 0.002, 0.013)

    @property
    def grasp_yaw(self) -> float:
        """Turn of the gripper that fits the source."""
        return _nearest_turn(self.source_yaw, 0.0, self.grasp_period)

    @property
    def place_yaw(self) -> float:
        """Turn of the gripper when placing."""
        if self.square_to is not None:
            return _nearest_turn(self.square_to, self.commanded[3], np.pi / 2)
        return float(self.commanded[3])

    @property
    def release_height(self) -> float:
        """Tool height at which to open the fingers."""
        if self.drop_height is not None:
            return self.drop_height
        return float(self.target[2] + (self.tool[2] - self.source[2]) + 0.003)


def _nearest_turn(goal: float, now: float, period: float) -> float:
    """The angle equal to `goal` up to multiples of `period` that is nearest to `now`."""
    return goal + period * round((now - goal) / period)


@dataclass
class PickAndPlace:
    """Where the work is; `act` goes on with it until somebody is satisfied."""

    random: np.random.Generator
    own_noise: ExpertNoise
    """When it is not clumsy."""
    pace: float = 1.0
    clumsy_left: int = 0
    """Control steps until the noise is its own."""
    phase: str = "above"
    waited: int = 0
    """Control steps spent in the phase."""
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Error of the present attempt, meters."""

    def __post_init__(self) -> None:
        self.noise = CLUMSY if self.clumsy_left else self.own_noise
        self._draw_offset()

    @property
    def retreated(self) -> bool:
        """Whether the hand has been drawn back after letting go."""
        return self.phase == "retreat" and self.waited >= _RETREAT_STEPS - 1

    def act(self, now: Handling) -> NDArray[np.float64]:
        """[5] one action: the phase's waypoint, approached as fast as the bounds allow."""
        if self.clumsy_left == 0 and self.noise is not self.own_noise:
            self.noise = self.own_noise
            self._draw_offset()
        self._advance(now)
        waypoint, gripper = self._waypoint(now)
        self.waited += 1
        motion = waypoint - now.commanded
        fastest = self.pace * ACTION_HIGH[:4]
        motion += self.random.normal(size=4) * self.noise.action_std * fastest
        self.clumsy_left = max(0, self.clumsy_left - 1)
        return np.append(np.clip(motion, -fastest, fastest), gripper)

    def _draw_offset(self) -> None:
        self.offset = self.random.normal(size=2) * self.noise.waypoint_std

    def _enter(self, phase: str) -> None:
        self.phase, self.waited = phase, 0

    def _retry(self) -> None:
        self._draw_offset()
        self._enter("above")

    def _advance(self, now: Handling) -> None:
        """Move on to the next phase if the present one is finished, or back if it failed."""
        phase, waited = self.phase, self.waited
        grasping = phase in ("above", "descend")
        goal = (now.source[:2] if grasping else now.carried_goal) + self.offset
        near = np.linalg.norm(goal - now.tool[:2])
        hurried = self.random.random() < self.noise.hurry
        slack = 0.006 + 2 * 0.05 * self.noise.action_std
        patience = 5 / self.pace
        if phase == "above":
            turn = abs(now.grasp_yaw - now.tool[3])
            if near < 0.010 + slack and turn < 0.12 and now.tool[2] < HOVER + 0.03:
                self._enter("descend")
        elif phase == "descend":
            if now.tool[2] < now.grasp_height + slack or hurried or waited > patience:
                self._enter("close")
        elif phase == "close" and waited >= _CLOSE_STEPS:
            self._enter("lift")
        elif phase == "lift" and waited >= 1 and not now.held:
            self._retry()
        elif phase == "lift" and now.tool[2] > CARRY - 0.045:
            self._draw_offset()
            self._enter("carry")
        elif phase in ("carry", "lower") and not now.held:
            self._retry()
        elif phase == "carry" and near < 0.008 + slack:
            self._enter("lower")
        elif phase == "lower":
            if now.tool[2] < now.release_height + slack or hurried or waited > patience:
                self._enter("release")
        elif phase == "release" and waited >= _RELEASE_STEPS:
            self._enter("retreat")
        elif phase == "retreat" and waited >= _RETREAT_STEPS:
            self._retry()

    def _waypoint(self, now: Handling) -> tuple[NDArray[np.float64], float]:
        """Tool pose [4] to go to in this phase, and the gripper's command."""
        phase, still = self.phase, now.commanded
        if phase in ("above", "descend"):
            height = HOVER if phase == "above" else now.grasp_height
            return np.array([*(now.source[:2] + self.offset), height, now.grasp_yaw]), OPEN
        if phase == "close":
            return still, CLOSED
        if phase == "lift":
            return np.array([still[0], still[1], CARRY, still[3]]), CLOSED
        if phase in ("carry", "lower"):
            height = CARRY if phase == "carry" else now.release_height
            return np.array([*(now.carried_goal + self.offset), height, now.place_yaw]), CLOSED
        if phase == "release":
            return still, OPEN
        return np.array([still[0], still[1], CARRY, still[3]]), OPEN
