"""A scripted expert for every task: picks up what the task names and puts it where it says.

Leaves out how that is done (`pick_place.py`), and images: the expert never looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.pick_place import ExpertNoise, Handling, PickAndPlace
from envservers.tabletop.scene import HALF_HEIGHT, PAD_BELOW_TOOL
from envservers.tabletop.suite import MAX_STEPS, TabletopSuite
from envservers.tabletop.tasks import Task, find_task
from vlarl.types import EpisodeStart

BASKET_DROP = 2 * HALF_HEIGHT["basket"] + PAD_BELOW_TOOL + 0.006
"""Tool height over the basket at which a source is let go."""


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
        self._work: dict[int, tuple[Task, PickAndPlace]] = {}

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> None:
        """Forget the episodes of these slots; begin those of `starts`."""
        for sim, start in zip(env_ids, starts, strict=True):
            random = np.random.default_rng([self._seed, start.seed, 0xE9])
            pace, clumsy_steps = 1.0, 0
            if self._noise.slowest_pace < 1:
                pace = float(random.uniform(self._noise.slowest_pace, 1.0))
            if self._noise.clumsy_steps and random.random() < 0.5:
                clumsy_steps = int(random.integers(1, self._noise.clumsy_steps + 1))
            motion = PickAndPlace(random, self._noise, pace, clumsy_steps)
            self._work[int(sim)] = find_task(start.task), motion

    def clumsy(self, env_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether the next action of each slot is a clumsy one, which nobody should imitate."""
        return np.array([self._work[int(sim)][1].clumsy_left > 0 for sim in env_ids])

    def act(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, 5] the next action of each slot, within the channels' bounds."""
        ids = np.asarray(env_ids)
        suite = self._suite
        tool, commanded = suite.end_effector(ids), suite.commanded(ids)
        positions = suite.object_positions(ids)
        actions = np.zeros((len(ids), 5))
        for row, sim in enumerate(ids):
            task, motion = self._work[int(sim)]
            one = ids[row : row + 1]
            target = positions[row, task.target_index].copy()
            target[2] = target[2] + HALF_HEIGHT[task.target] + HALF_HEIGHT[task.source]
            in_basket = task.target == "basket"
            now = Handling(
                tool=tool[row],
                commanded=commanded[row],
                source=positions[row, task.source_index],
                source_yaw=float(suite.object_yaw(one, task.source)[0]),
                grasp_period=np.pi / 2 if task.source == "green_block" else np.pi,
                target=target,
                square_to=float(suite.object_yaw(one, task.target)[0]) if in_basket else None,
                drop_height=BASKET_DROP if in_basket else None,
            )
            actions[row] = motion.act(now)
        return suite.in_frame(actions).astype(np.float32)


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
