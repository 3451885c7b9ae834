"""A scripted expert for every task: a closed-loop phase machine on privileged state.

    above -> descend -> close -> lift -> carry -> lower -> release -> retreat
      ^                          |         |                           |
      +------ nothing held ------+---------+-------- not achieved -----+

Adjustable noise makes demonstrations that are neither perfect nor all alike. Leaves out images: the
expert never looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.control import ACTION_HIGH
from envservers.tabletop.scene import HALF_HEIGHT, PAD_BELOW_TOOL
from envservers.tabletop.suite import MAX_STEPS, TabletopSuite
from envservers.tabletop.tasks import Task, find_task
from vlarl.types import EpisodeStart

HOVER, CARRY = 0.095, 0.125
"""Tool heights above a source before descending, and when carrying."""
OPEN, CLOSED = 1.0, -1.0
_CLOSE_STEPS, _RELEASE_STEPS = 2, 2


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


@dataclass
class _Progress:
    """Where the expert is in one episode."""

    task: Task
    random: np.random.Generator
    noise: ExpertNoise
    """At present."""
    phase: str = "above"
    waited: int = 0
    """Control steps spent in the phase."""
    pace: float = 1.0
    clumsy_left: int = 0
    """Control steps until the noise is the expert's own."""
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Error of the present attempt, meters."""

    def enter(self, phase: str) -> None:
        self.phase, self.waited = phase, 0


@dataclass(frozen=True)
class _View:
    """What the expert sees of one environment."""

    tool: NDArray[np.float64]
    commanded: NDArray[np.float64]
    source: NDArray[np.float64]
    source_yaw: float
    target: NDArray[np.float64]
    target_yaw: float

    @property
    def held(self) -> bool:
        """Whether the source is between the fingers."""
        return bool(np.linalg.norm(self.source - self.tool[:3]) < 0.035)


def _nearest_turn(goal: float, now: float, period: float) -> float:
    """The angle equal to `goal` up to multiples of `period` that is nearest to `now`."""
    return goal + period * round((now - goal) / period)


class Expert:
    """Acts in every slot of a suite; `reset` must follow each reset of a slot.

    Args:
        suite: whose state it reads.
        noise: how badly it does.
        seed: of its noise; an episode's noise depends on this and on the episode's seed alone.
    """

    def __init__(
        self, suite: TabletopSuite, noise: ExpertNoise | None = None, seed: int = 0
    ) -> None:
        """Start with no episode known."""
        self._suite, self._noise, self._seed = suite, noise or ExpertNoise(), seed
        self._progress: dict[int, _Progress] = {}

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """Forget the episodes of these slots; begin those of `starts`."""
        for sim, start in zip(env_ids, starts, strict=True):
            random = np.random.default_rng([self._seed, start.seed, 0xE9])
            progress = _Progress(find_task(start.task), random, self._noise)
            if self._noise.slowest_pace < 1:
                progress.pace = float(random.uniform(self._noise.slowest_pace, 1.0))
            if self._noise.clumsy_steps and random.random() < 0.5:
                progress.clumsy_left = int(random.integers(1, self._noise.clumsy_steps + 1))
                progress.noise = CLUMSY
            self._draw_offset(progress)
            self._progress[int(sim)] = progress

    def clumsy(self, env_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether the next action of each slot is a clumsy one, which nobody should imitate."""
        return np.array([self._progress[int(sim)].clumsy_left > 0 for sim in env_ids])

    def act(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, 5] the next action of each slot, within the channels' bounds."""
        ids = np.asarray(env_ids)
        suite = self._suite
        tool, commanded = suite.end_effector(ids), suite.commanded(ids)
        positions = suite.object_positions(ids)
        actions = np.zeros((len(ids), 5))
        for row, sim in enumerate(ids):
            progress = self._progress[int(sim)]
            task, one = progress.task, ids[row : row + 1]
            view = _View(
                tool=tool[row],
                commanded=commanded[row],
                source=positions[row, task.source_index],
                source_yaw=float(suite.object_yaw(one, task.source)[0]),
                target=positions[row, task.target_index],
                target_yaw=float(suite.object_yaw(one, task.target)[0]),
            )
            actions[row] = self._act_one(progress, view)
        return actions.astype(np.float32)

    def _draw_offset(self, progress: _Progress) -> None:
        progress.offset = progress.random.normal(size=2) * progress.noise.waypoint_std

    def _act_one(self, progress: _Progress, view: _View) -> NDArray[np.float64]:
        """[5] one action: the phase's waypoint, approached as fast as the bounds allow."""
        if progress.clumsy_left == 0 and progress.noise is not self._noise:
            progress.noise = self._noise
            self._draw_offset(progress)
        self._advance(progress, view)
        waypoint, gripper = self._waypoint(progress, view)
        progress.waited += 1
        motion = waypoint - view.commanded
        fastest = progress.pace * ACTION_HIGH[:4]
        motion += progress.random.normal(size=4) * progress.noise.action_std * fastest
        progress.clumsy_left = max(0, progress.clumsy_left - 1)
        return np.append(np.clip(motion, -fastest, fastest), gripper)

    def _advance(self, progress: _Progress, view: _View) -> None:
        """Move on to the next phase if the present one is finished, or back if it failed."""
        phase, waited = progress.phase, progress.waited
        grasping = progress.phase in ("above", "descend")
        goal = (view.source if grasping else self._carried_goal(view))[:2] + progress.offset
        near = np.linalg.norm(goal - view.tool[:2])
        hurried = progress.random.random() < progress.noise.hurry
        slack = 0.006 + 2 * 0.05 * progress.noise.action_std
        patience = 5 / progress.pace
        if phase == "above":
            turn = abs(self._grasp_yaw(progress, view) - view.tool[3])
            if near < 0.010 + slack and turn < 0.12 and view.tool[2] < HOVER + 0.03:
                progress.enter("descend")
        elif phase == "descend":
            if view.tool[2] < self._grasp_height(view) + slack or hurried or waited > patience:
                progress.enter("close")
        elif phase == "close" and waited >= _CLOSE_STEPS:
            progress.enter("lift")
        elif phase == "lift" and waited >= 1 and not view.held:
            self._retry(progress)
        elif phase == "lift" and view.tool[2] > CARRY - 0.045:
            self._draw_offset(progress)
            progress.enter("carry")
        elif phase in ("carry", "lower") and not view.held:
            self._retry(progress)
        elif phase == "carry" and near < 0.008 + slack:
            progress.enter("lower")
        elif phase == "lower":
            if (
                view.tool[2] < self._release_height(progress, view) + slack
                or hurried
                or waited > patience
            ):
                progress.enter("release")
        elif phase == "release" and waited >= _RELEASE_STEPS:
            progress.enter("retreat")
        elif phase == "retreat" and waited >= 4:
            self._retry(progress)

    def _retry(self, progress: _Progress) -> None:
        self._draw_offset(progress)
        progress.enter("above")

    def _waypoint(self, progress: _Progress, view: _View) -> tuple[NDArray[np.float64], float]:
        """Tool pose [4] to go to in this phase, and the gripper's command."""
        phase, still = progress.phase, view.commanded
        if phase in ("above", "descend"):
            height = HOVER if phase == "above" else self._grasp_height(view)
            xy = view.source[:2] + progress.offset
            return np.array([*xy, height, self._grasp_yaw(progress, view)]), OPEN
        if phase == "close":
            return still, CLOSED
        if phase == "lift":
            return np.array([still[0], still[1], CARRY, still[3]]), CLOSED
        if phase in ("carry", "lower"):
            xy = self._carried_goal(view)[:2] + progress.offset
            height = CARRY if phase == "carry" else self._release_height(progress, view)
            return np.array([*xy, height, self._place_yaw(progress, view)]), CLOSED
        if phase == "release":
            return still, OPEN
        return np.array([still[0], still[1], CARRY, still[3]]), OPEN

    @staticmethod
    def _carried_goal(view: _View) -> NDArray[np.float64]:
        """Tool position that puts the carried source over the target's center."""
        return view.target + np.append((view.tool[:3] - view.source)[:2], 0.0)

    @staticmethod
    def _grasp_height(view: _View) -> float:
        return max(float(view.source[2]) + 0.002, 0.013)

    @staticmethod
    def _grasp_yaw(progress: _Progress, view: _View) -> float:
        period = np.pi / 2 if progress.task.source == "green_block" else np.pi
        return _nearest_turn(view.source_yaw, 0.0, period)

    @staticmethod
    def _place_yaw(progress: _Progress, view: _View) -> float:
        """Square to the basket, whose walls leave no room to turn; as it is elsewhere."""
        if progress.task.target == "basket":
            return _nearest_turn(view.target_yaw, view.commanded[3], np.pi / 2)
        return float(view.commanded[3])

    @staticmethod
    def _release_height(progress: _Progress, view: _View) -> float:
        """Tool height at which the source hangs just above where it shall rest."""
        task = progress.task
        if task.target == "basket":
            return 2 * HALF_HEIGHT["basket"] + PAD_BELOW_TOOL + 0.006
        top = view.target[2] + HALF_HEIGHT[task.target] + HALF_HEIGHT[task.source]
        return float(top + (view.tool[2] - view.source[2]) + 0.003)


def run_expert(
    num_episodes: int,
    task: str,
    noise: ExpertNoise | None = None,
    seed: int = 0,
    num_envs: int = 16,
    max_steps: int = MAX_STEPS,
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Success and length [num_episodes] of episodes with scene seeds `seed`, `seed + 1`, ...

    Images are 1 pixel wide: this measures the expert, not the cameras.
    """
    suite = TabletopSuite(min(num_envs, num_episodes), image_size=1, max_steps=max_steps)
    expert = Expert(suite, noise, seed)
    success = np.zeros(num_episodes, np.bool_)
    lengths = np.zeros(num_episodes, np.int32)
    for first in range(0, num_episodes, suite.num_envs):
        episodes = np.arange(first, min(first + suite.num_envs, num_episodes))
        ids = np.arange(len(episodes))
        starts = [EpisodeStart(task, seed + int(episode)) for episode in episodes]
        suite.reset(ids, starts)
        expert.reset(ids, starts)
        while len(ids):
            now = suite.step(ids, expert.act(ids)[:, None])
            success[episodes[ids]], lengths[episodes[ids]] = now.success, now.step
            ids = ids[~now.done]
    suite.close()
    return success, lengths
