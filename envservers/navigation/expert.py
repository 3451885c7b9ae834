"""A scripted expert: the shortest way to the goal, then it stops. It never looks.

It turns to where it is going before it goes there, so that its camera shows what a learner must
decide by; what it follows, it keeps in view. Adjustable noise makes demonstrations that are not all
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.navigation.geometry import Floats, is_clear
from envservers.navigation.planner import CLEARANCE, way_from
from envservers.navigation.sampling import PERSON, WALLS
from envservers.navigation.suite import MAX_MOVE, MAX_STEPS, MAX_TURN, NavigationSuite
from envservers.navigation.tasks import SUCCESS_DISTANCE
from vlarl.types import EpisodeStart
from vlarl.waypoints import waypoints_from_poses

STOP_DISTANCE = SUCCESS_DISTANCE - 0.2
"""Meters from the goal at which it stops."""
FOLLOW_GAP = 0.75
"""Meters it keeps from whom it follows."""
_TOO_NEAR = 0.6
"""Meters within which it gives way: they might be waiting for that."""
_TURN_FIRST = 1.0
"""Radians between heading and way beyond which it turns on the spot."""


@dataclass(frozen=True)
class ExpertNoise:
    """How badly the expert does; all zero: as well as it can."""

    waypoint_std: float = 0.0
    """Meters: an offset (normal), drawn once an episode, of the places it heads for."""
    action_std: float = 0.0
    """Normal noise on each waypoint that is a move, as a fraction of the agent's speeds."""
    slowest_pace: float = 1.0
    """Each episode is gone at a pace of its own, uniform between this and 1."""
    clumsy_steps: int = 0
    """Half of all episodes begin with up to so many control steps of aimless wandering."""


@dataclass
class _Progress:
    """One episode of the expert's."""

    random: np.random.Generator
    pace: float
    offset: Floats
    clumsy_left: int


class Expert:
    """Acts in every slot of a suite; `reset` must follow each reset of a slot.

    Args:
        suite: whose state it reads.
        noise: how badly it does.
        seed: of its noise; an episode's noise depends on this and on the episode's seed alone.
    """

    def __init__(
        self, suite: NavigationSuite, noise: ExpertNoise | None = None, seed: int = 0
    ) -> None:
        """Start with no episode known."""
        self._suite, self._noise, self._seed = suite, noise or ExpertNoise(), seed
        self._progress: dict[int, _Progress] = {}

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """Forget the episodes of these slots; begin those of `starts`."""
        noise = self._noise
        for sim, start in zip(env_ids, starts, strict=True):
            random = np.random.default_rng([self._seed, start.seed, 0xA9])
            pace = float(random.uniform(noise.slowest_pace, 1.0))
            offset = random.normal(0.0, noise.waypoint_std, 2)
            clumsy = 0
            if noise.clumsy_steps and random.random() < 0.5:
                clumsy = int(random.integers(1, noise.clumsy_steps + 1))
            self._progress[int(sim)] = _Progress(random, pace, offset, clumsy)

    def clumsy(self, env_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether the next action of each slot is aimless, and nobody should imitate it."""
        return np.array([self._progress[int(sim)].clumsy_left > 0 for sim in env_ids])

    def act(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, 3] the next waypoint of each slot, within what the agent can do."""
        return np.array([self._act(int(sim)) for sim in env_ids], np.float32)

    def _act(self, sim: int) -> Floats:
        progress = self._progress[sim]
        if progress.clumsy_left:
            progress.clumsy_left -= 1
            ahead, turn = progress.random.uniform([-0.3, -1.0], [1.0, 1.0])
            return np.array([ahead * MAX_MOVE, 0.0, turn * MAX_TURN])
        place, look = self._aim(sim)
        waypoint = _towards(self._suite.slots.pose[sim], place, look, progress.pace)
        if self._noise.action_std and waypoint.any():
            scale = np.array([MAX_MOVE, MAX_MOVE, MAX_TURN]) * self._noise.action_std
            waypoint += progress.random.normal(0.0, scale)
        return waypoint

    def _aim(self, sim: int) -> tuple[Floats, Floats]:
        """Where to go [2] (where it is: nowhere), and what to look at [2]."""
        slots = self._suite.slots
        here, goal = slots.pose[sim, :2], slots.center[sim, slots.goal[sim]]
        follows = slots.goal[sim] == PERSON
        around = slots.obstacles(np.array(sim))
        seen = bool(is_clear(here, goal, around.only(WALLS), 0.0))
        distance = float(np.linalg.norm(goal - here))
        if follows and distance < _TOO_NEAR:
            return here + (here - goal), goal
        if seen and distance <= (FOLLOW_GAP if follows else STOP_DISTANCE):
            return here, goal
        others = np.array([i for i in range(PERSON + 1) if i != slots.goal[sim]])
        if follows:
            trail = slots.walk[sim, : slots.walked[sim] + 1]
            away = np.linalg.norm(trail - goal, axis=-1) >= FOLLOW_GAP - 0.1
            # Around a corner it goes on, until it sees whom it follows.
            way = trail[: max(int(away.sum()), 1)] if seen else trail
        else:
            way = way_from(here, slots.field[sim])
        clear = is_clear(here, way, around.only(others), CLEARANCE - 0.02)
        nearest = int(np.argmin(np.linalg.norm(way - here, axis=-1)))
        farthest = int(np.flatnonzero(clear)[-1]) if clear.any() else 0
        # A corner may hide all but the place where it stands: on along the way, then.
        ahead = way[min(max(farthest, nearest + 1), len(way) - 1)]
        ahead = ahead + self._progress[sim].offset
        return ahead, goal if follows and seen else ahead


def _towards(pose: Floats, place: Floats, look: Floats, pace: float) -> Floats:
    """[3] the waypoint towards `place` that turns to `look`; both are points [2]."""
    poses = np.stack([pose, [*place, 0.0]]), np.stack([pose, [*look, 0.0]])
    way, gaze = (waypoints_from_poses(pair)[0, :2] for pair in poses)
    turn = float(np.clip(np.arctan2(gaze[1], gaze[0]), -MAX_TURN, MAX_TURN))
    length = float(np.linalg.norm(way))
    if length < 1e-6:
        # It is there: a stop, unless what it looks at is out of view.
        return np.array([0.0, 0.0, turn if abs(turn) > MAX_TURN / 2 else 0.0])
    if abs(np.arctan2(way[1], way[0])) > _TURN_FIRST and way @ gaze > 0:
        return np.array([0.0, 0.0, turn])
    step = way * min(pace * MAX_MOVE / length, 1.0)
    return np.array([*step, turn])


def run_expert(
    num_episodes: int,
    task: str,
    noise: ExpertNoise | None = None,
    seed: int = 0,
    num_envs: int = 16,
    max_steps: int = MAX_STEPS,
) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.float32]]:
    """Success, length and SPL [num_episodes] of episodes with seeds `seed`, `seed + 1`, ...

    Images are 1 pixel wide: this measures the expert, not the camera.
    """
    suite = NavigationSuite(min(num_envs, num_episodes), image_size=1, max_steps=max_steps)
    expert = Expert(suite, noise, seed)
    success = np.zeros(num_episodes, np.bool_)
    lengths = np.zeros(num_episodes, np.int32)
    weighted = np.zeros(num_episodes, np.float32)
    for first in range(0, num_episodes, suite.num_envs):
        episodes = np.arange(first, min(first + suite.num_envs, num_episodes))
        ids = np.arange(len(episodes))
        starts = [EpisodeStart(task, seed + int(episode)) for episode in episodes]
        suite.reset(ids, starts)
        expert.reset(ids, starts)
        while len(ids):
            now = suite.step(ids, expert.act(ids)[:, None])
            success[episodes[ids]], lengths[episodes[ids]] = now.success, now.step
            weighted[episodes[ids]] = now.info["spl"]
            ids = ids[~now.done]
    return success, lengths, weighted
