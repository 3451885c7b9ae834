"""Demonstrations of the expert: whole, balanced, and true to the simulator."""

import numpy as np
import pytest

from actors.collect import HAND_POINTS, collect, make_grounding, points_to_name
from actors.experts import make_tabletop
from envservers.held_out import HELD_OUT
from envservers.tabletop.scene import OBJECTS
from envservers.tabletop.suite import TabletopSuite
from vlarl.config.data_schema import CollectConfig
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

SIZE = 8


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> LeRobotReader:
    path = tmp_path_factory.mktemp("collected") / "data"
    config = CollectConfig(episodes=6, seed=2)
    result = collect("tabletop", path, config, num_envs=3, image_size=SIZE)
    found = LeRobotReader(path)
    assert (result.episodes, result.frames) == (len(found), found.info["total_frames"])
    return found


def test_tasks_are_balanced_and_seeds_are_for_training(reader):
    tasks = [row.extra["scene_task"] for row in reader.episodes]
    assert sorted(tasks.count(task) for task in set(tasks)) == [1, 1, 2, 2]
    seeds = [row.extra["scene_seed"] for row in reader.episodes]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < HELD_OUT
    assert all(row.extra["success"] for row in reader.episodes)


@pytest.mark.parametrize("index", [0, 3])
def test_recorded_actions_replayed_open_loop_reproduce_the_episode(reader, index):
    episode = reader.episode(index)
    task, seed = episode.extra["scene_task"], episode.extra["scene_seed"]
    suite = TabletopSuite(2, image_size=SIZE)
    slot = np.array([1])
    now = suite.reset(slot, [EpisodeStart(task, seed)])
    assert now.instruction == (episode.instruction,)
    for frame, action in enumerate(episode.action):
        assert not now.done[0]
        assert np.array_equal(now.state[0], episode.state[frame])
        for name, images in now.images.items():
            assert np.array_equal(images[0], episode.images[name][frame])
        now = suite.step(slot, action[None, None])
    assert now.success[0]
    suite.close()


def test_failures_are_dropped_unless_kept(tmp_path):
    config = CollectConfig(episodes=4, waypoint_noise=0.03, keep_failures=True, seed=1)
    tasks = ("green_on_yellow",)
    kept = collect("tabletop", tmp_path / "all", config, tasks, num_envs=4, image_size=1)
    assert kept.attempts == kept.episodes == 4
    outcomes = [row.extra["success"] for row in LeRobotReader(tmp_path / "all").episodes]
    assert kept.successes == sum(outcomes) < 4


def test_suites_without_an_expert_are_refused(tmp_path):
    with pytest.raises(UserError, match="tabletop"):
        collect("gym:CartPole-v1", tmp_path / "x", CollectConfig(episodes=1))


def test_grounding_places_show_the_object():
    suite = make_tabletop("tabletop", 4, image_size=64)
    grounding = make_grounding(suite, 20, seed=5)
    again = make_grounding(suite, 20, seed=5)
    assert len(grounding) == 20
    assert np.array_equal(grounding.places, again.places, equal_nan=True)
    assert np.array_equal(grounding.images["ego"], again.images["ego"])
    assert "green block" in grounding.objects
    # The yellow block is the only yellow thing: red and green stand out over blue at its place.
    yellow = grounding.objects.index("yellow block")
    contrasts = []
    for image, place in zip(grounding.images["ego"], grounding.places[:, 0, yellow], strict=True):
        if ((place >= 0) & (place < 1)).all():
            across, down = (place * 64).astype(int)
            red, green, blue = image[down, across].astype(int)
            contrasts.append(min(red, green) - blue)
    assert np.median(contrasts) > 40
    suite.close()


def test_grounding_knows_where_the_fingers_are():
    suite = make_tabletop("tabletop", 4)
    ids = np.arange(4)
    starts = [EpisodeStart("spoon_on_towel", seed) for seed in ids.tolist()]
    suite.reset(ids, starts)
    bodies = suite._batch.bind("xpos")
    for gripper in (1.0, -1.0):
        actions = np.zeros((4, 3, 5), np.float32)
        actions[:, :, 3], actions[:, :, 4] = 0.2, gripper
        suite.step(ids, actions)
        points = points_to_name(suite, ids)[:, len(OBJECTS) :]
        gaps = []
        for side in ("left", "right"):
            true = bodies[ids, suite.model.body(f"{side}_finger").id]
            found = points[:, HAND_POINTS.index(f"{side} finger")]
            assert np.abs(found - true)[:, :2].max() < 0.004
            gaps.append(found)
        gap = np.linalg.norm(gaps[0] - gaps[1], axis=1)
        assert (gap > 0.08).all() if gripper > 0 else (gap < 0.03).all()
    suite.close()
