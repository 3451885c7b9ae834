"""Demonstrations of the expert: whole, balanced, and true to the simulator."""

import numpy as np
import pytest

from actors.collect import collect, make_grounding, make_tabletop
from actors.episodes import HELD_OUT
from envservers.tabletop.suite import TabletopSuite
from vlarl.config.schema import CollectConfig
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
