"""Demonstrations by the scripted expert, and rendered scenes with the places of their objects.

Composition root: simulator on one side, datasets on the other. Many episodes run at once and every
control step is recorded, with the images that were seen before the action; of an episode that
begins clumsily, only the recovery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.experts import Expert, expert_of, is_served, suite_options
from actors.recording import EpisodeQuota, Recording
from actors.server_demonstrations import (
    SLOTS,
    check_settings,
    open_servers,
    served_episodes,
)
from envservers.held_out import HELD_OUT
from envservers.registry import make_suite
from envservers.tabletop import expert as tabletop
from envservers.tabletop.pick_place import ExpertNoise
from envservers.tabletop.scene import FINGER_HALF, OBJECTS
from envservers.tabletop.suite import TabletopSuite
from vlarl.config.data_schema import CollectConfig
from vlarl.data.episode import Episode
from vlarl.data.grounding import GroundingSet
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.env_protocol import Suite
from vlarl.types import EnvSpec, EpisodeStart, TimeStep

_AT_ONCE = 32
"""Episodes in one process, unless something else is wished for."""
_CLUMSY = ExpertNoise(waypoint_std=0.02, action_std=0.3)
"""Of the expert along whose episodes grounding scenes are taken."""
HAND_POINTS = ("gripper", "spot below the gripper", "left finger", "right finger")
"""Without the fingers a policy cannot tell an open hand from a closed one, and grasps for ever."""
MOTION_STEPS, EXPERT_STEPS, EXPERT_STRIDE = 8, 36, 2
"""Of grounding scenes: control steps of a random motion, of an episode, and between two scenes."""


@dataclass(frozen=True)
class CollectResult:
    """What `collect` did."""

    episodes: int
    """Kept."""
    frames: int
    attempts: int
    successes: int

    @property
    def success_rate(self) -> float:
        """Of the expert, over all attempts."""
        return self.successes / self.attempts


def collect(
    suite_name: str,
    out: str | Path,
    config: CollectConfig,
    tasks: Sequence[str] = (),
    num_envs: int | None = None,
    image_size: int = 64,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    options: Mapping[str, Any] | None = None,
    servers: int = 2,
) -> CollectResult:
    """Run the expert and write its episodes to `out` as a LeRobot v3.0 dataset.

    Args:
        suite_name: one that has an expert.
        out: folder that does not exist yet.
        config: how many episodes, how noisy.
        tasks: task names; empty means all.
        num_envs: episodes that run at once; None: as many as are quick (32, or 2 in each server).
        image_size: of all cameras, in pixels.
        threads: of physics and renderer, where these are in this process.
        progress: called with episodes kept and wanted.
        options: further ones of the suite, as in `EnvConfig.options`.
        servers: processes, where the suite runs in an environment of its own.

    Raises:
        UserError: for a suite without expert, an unknown task, more environments than memory, a
            suite that is not installed, a folder that exists, or an expert that fails.
    """
    given = suite_options(tasks, image_size, config.max_steps, options)
    make = _served if is_served(suite_name) else _in_process
    size = _Size(num_envs, threads, servers)
    with make(suite_name, given, config, size) as (spec, play):
        return _write(out, config, spec, play, progress)


class _Size(NamedTuple):
    """How much of a suite runs at once."""

    num_envs: int | None
    threads: int
    servers: int


Play = Callable[[EpisodeQuota], Iterator[tuple[Episode, bool]]]
"""Plays the quota's episodes; each as it ends, with its success."""


def _write(
    out: str | Path,
    config: CollectConfig,
    spec: EnvSpec,
    play: Play,
    progress: Callable[[int, int], None] | None,
) -> CollectResult:
    """Episodes that are worth keeping, into a dataset."""
    quota = EpisodeQuota(spec.tasks, config.episodes, config.seed)
    kept = frames = successes = 0
    with LeRobotWriter(
        out,
        fps=spec.control_hz,
        cameras=spec.cameras,
        action_names=[channel.name for channel in spec.channels],
        state_dim=spec.state_dim,
        robot_type=spec.embodiment,
    ) as writer:
        for episode, success in play(quota):
            successes += success
            if not (success or config.keep_failures):
                quota.give_back(str(episode.extra["scene_task"]))
                continue
            writer.add(episode)
            kept, frames = kept + 1, frames + len(episode)
            if progress is not None:
                progress(kept, config.episodes)
    return CollectResult(kept, frames, quota.attempts, successes)


@contextmanager
def _in_process(
    suite_name: str, options: dict[str, Any], config: CollectConfig, size: _Size
) -> Iterator[tuple[EnvSpec, Play]]:
    """A suite of this process, and its expert."""
    slots = min(size.num_envs or _AT_ONCE, config.episodes)
    suite = make_suite(suite_name, slots, **{"threads": size.threads, **options})
    try:
        expert = expert_of(suite, config)
        yield suite.spec, lambda quota: _expert_episodes(suite, expert, quota)
    finally:
        suite.close()


@contextmanager
def _served(
    suite_name: str, options: dict[str, Any], config: CollectConfig, size: _Size
) -> Iterator[tuple[EnvSpec, Play]]:
    """Servers of a suite with an environment of its own, which have its experts."""
    check_settings(suite_name, config)
    servers = min(size.servers, config.episodes)
    wanted = min(size.num_envs or SLOTS * servers, config.episodes)
    with open_servers(suite_name, servers, max(1, wanted // servers), options) as clients:
        yield clients[0].spec, lambda quota: served_episodes(clients, quota, config)


def _expert_episodes(
    suite: Suite, expert: Expert, quota: EpisodeQuota
) -> Iterator[tuple[Episode, bool]]:
    """Episodes as they end, with their success; refills slots until the quota gives none."""
    running: dict[int, Recording] = {}
    now: dict[int, tuple[TimeStep, int]] = {}
    while True:
        free = [slot for slot in range(suite.num_envs) if slot not in running]
        starts = quota.starts(len(free))
        if starts:
            slots = np.array(free[: len(starts)])
            first = suite.reset(slots, starts)
            expert.reset(slots, starts)
            for row, (slot, start) in enumerate(zip(slots.tolist(), starts, strict=True)):
                running[slot] = Recording(start, first.instruction[row])
                now[slot] = first, row
        if not running:
            return
        ids = np.array(sorted(running))
        clumsy, actions = expert.clumsy(ids), expert.act(ids)
        for slot, action, skipped in zip(ids, actions, clumsy, strict=True):
            if not skipped:
                running[int(slot)].add(*now[int(slot)], action)
        after = suite.step(ids, actions[:, None])
        for row, slot in enumerate(ids.tolist()):
            now[slot] = after, row
            if after.done[row]:
                success, recording = bool(after.success[row]), running.pop(slot)
                if recording.actions:
                    yield recording.finish(success), success
                else:
                    quota.give_back(recording.start.task)


def make_grounding(
    suite: TabletopSuite,
    count: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> GroundingSet:
    """Render `count` scenes with the places of their objects in every camera.

    Half are fresh scenes, before and after a random motion of arm and gripper; the other half are
    taken along episodes of a clumsy expert, where objects are carried and displaced.

    Args:
        suite: its running episodes are lost.
        count: `M`
        seed: of scenes (all below the held-out ones), tasks and motions.
        progress: called with the number of scenes so far.
    """
    random = np.random.default_rng([seed, 0x6D])
    gallery = _Gallery(suite)
    while len(gallery) < count:
        photograph = _photograph_motions if len(gallery) < count // 2 else _photograph_expert
        photograph(suite, gallery, random)
        if progress is not None:
            progress(min(len(gallery), count))
    return gallery.to_set(count)


class _Gallery:
    """Scenes gathered so far."""

    def __init__(self, suite: TabletopSuite) -> None:
        self._suite = suite
        self._images: dict[str, list[NDArray[np.uint8]]] = {c.name: [] for c in suite.spec.cameras}
        self._places: list[NDArray[np.float64]] = []
        self._offsets: list[NDArray[np.float64]] = []

    def __len__(self) -> int:
        return sum(len(places) for places in self._places)

    def add(self, now: TimeStep) -> None:
        """Take in the scenes of `now`, which must be the latest of their slots."""
        for name, images in self._images.items():
            images.append(now.images[name])
        points = points_to_name(self._suite, now.env_ids)
        views = [self._suite.point_pixels(points, now.env_ids, camera) for camera in self._images]
        self._places.append(np.stack(views, axis=1))
        self._offsets.append(points - points[:, len(OBJECTS), None])

    def to_set(self, count: int) -> GroundingSet:
        """The first `count` scenes."""
        return GroundingSet(
            images={name: np.concatenate(each)[:count] for name, each in self._images.items()},
            objects=(*(name.replace("_", " ") for name in OBJECTS), *HAND_POINTS),
            places=np.concatenate(self._places)[:count].astype(np.float32),
            offsets=np.concatenate(self._offsets)[:count].astype(np.float32),
        )


def points_to_name(suite: TabletopSuite, env_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """[n, 12, 3] world points: the objects, then `HAND_POINTS`.

    The gripper and the table right below it, seen by one camera, say where the hand is in space.
    """
    state = suite.state(env_ids).astype(np.float64)
    opening, tool, yaw = state[:, 6:7], state[:, 7:10], state[:, 10:]
    finger = (opening / 2 + FINGER_HALF) * np.concatenate([-np.sin(yaw), np.cos(yaw), 0 * yaw], 1)
    hand = np.stack([tool, tool * [1, 1, 0], tool + finger, tool - finger], axis=1)
    return np.concatenate([suite.object_positions(env_ids), hand], axis=1)


def _random_starts(suite: TabletopSuite, random: np.random.Generator) -> list[EpisodeStart]:
    tasks = random.choice(suite.spec.tasks, suite.num_envs)
    seeds = random.integers(HELD_OUT, size=suite.num_envs)
    return [EpisodeStart(str(task), int(s)) for task, s in zip(tasks, seeds, strict=True)]


def _photograph_motions(
    suite: TabletopSuite, gallery: _Gallery, random: np.random.Generator
) -> None:
    """Fresh scenes, and the same after a straight random motion that ends anywhere."""
    ids = np.arange(suite.num_envs)
    gallery.add(suite.reset(ids, _random_starts(suite, random)))
    low = np.array([channel.low for channel in suite.spec.channels], np.float32)
    high = np.array([channel.high for channel in suite.spec.channels], np.float32)
    motion = random.uniform(low, high, (suite.num_envs, 1, len(low))).astype(np.float32)
    gallery.add(suite.step(ids, np.repeat(motion, MOTION_STEPS, axis=1)))


def _photograph_expert(
    suite: TabletopSuite, gallery: _Gallery, random: np.random.Generator
) -> None:
    """Every few control steps of one clumsy episode in each slot."""
    ids = np.arange(suite.num_envs)
    starts = _random_starts(suite, random)
    suite.reset(ids, starts)
    expert = tabletop.Expert(suite, _CLUMSY, int(random.integers(HELD_OUT)))
    expert.reset(ids, starts)
    for step in range(EXPERT_STEPS):
        now = suite.step(ids, expert.act(ids)[:, None])
        if step % EXPERT_STRIDE == 0:
            gallery.add(now)
        ids = ids[~now.done]
        if not len(ids):
            return
