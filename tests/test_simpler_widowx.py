"""Simpler-WidowX against a stand-in of ManiSkill's interface: its scenes are on no package index.

The contract of all suites is `test_suite_contract.py`'s, in a real server whose interpreter finds
the stand-in; where ManiSkill and the scenes are, that file tries the real thing.
"""

import os
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from test_suite_contract import (  # noqa: F401, collected here with this file's client
    options_of,
    test_a_chunk_is_its_control_steps_one_after_the_other,
    test_a_snapshot_goes_on_bit_for_bit,
    test_an_episode_begins_as_its_start_says_in_any_slot_and_after_anything,
    test_an_episode_ends_at_its_limit_and_then_takes_no_more,
    test_experts_answer_within_the_bounds_of_the_channels_or_not_at_all,
    test_the_spec_is_what_the_class_says_without_its_simulator,
    test_what_is_no_action_is_refused,
)

from actors.episodes import held_out_starts
from envservers.client import spawn_server
from envservers.held_out import HELD_OUT
from envservers.maniskill.tasks import WIDOWX
from envservers.maniskill.widowx import DOWNLOADS
from envservers.registry import make_suite
from envservers.task_groups import find_protocol
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

FAKE = Path(__file__).parent / "stand_ins" / "maniskill"
SPOON, EGGPLANT = "PutSpoonOnTableClothInScene-v1", "PutEggplantInBasketScene-v1"
PARTS = ("tasks/bridge_v2_real2sim_dataset/real_inpainting", "robots/widowx")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """What `MS_ASSET_DIR` names once everything was downloaded."""
    folder = tmp_path_factory.mktemp("maniskill")
    for part in PARTS:
        (folder / "data" / part).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def client(scenes):
    with pytest.MonkeyPatch.context() as patch:
        root = Path(__file__).parents[1]
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(FAKE)]))
        patch.setenv("MS_ASSET_DIR", str(scenes))
        found = spawn_server(
            "simpler-widowx", 2, options_of("simpler-widowx"), python=sys.executable
        )
        yield found
        found.close()


@pytest.fixture
def here(scenes, monkeypatch):
    """The stand-in in this process."""
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("MS_ASSET_DIR", str(scenes))
    before = set(gymnasium.registry)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "mani_skill"]:
        del sys.modules[name]
    for task in set(gymnasium.registry) - before:
        gymnasium.registry.pop(task)


def play(suite, start, *chunks):
    """The last time step of an episode in slot 0."""
    now = suite.reset(np.arange(1), [start])
    for chunk in chunks:
        now = suite.step(np.arange(1), np.asarray(chunk, np.float32)[None])
    return now


def test_each_task_has_its_own_limit_unless_one_is_given(here):
    still = [[0, 0, 0, 0, 0, 0, 1.0]] * 200
    suite = make_suite("simpler-widowx", 1, image_size=16)
    for task, steps in ((SPOON, 60), (EGGPLANT, 120)):
        after = play(suite, EpisodeStart(task, 3), still)
        assert (after.truncated[0], after.step[0]) == (True, steps)
    suite.close()
    suite = make_suite("simpler-widowx", 1, image_size=16, max_steps=70)
    assert play(suite, EpisodeStart(SPOON, 3), still).step[0] == 70
    suite.close()


def test_held_out_seeds_are_the_published_episodes_in_order(here):
    suite = make_suite("simpler-widowx", 1, image_size=64, tasks=["PutSpoonOnTableClothInScene"])
    seen = [
        play(suite, EpisodeStart(SPOON, HELD_OUT + number)).images["ego"].tobytes()
        for number in range(25)
    ]
    suite.close()
    assert len(set(seen[:24])) == 24
    assert seen[24] == seen[0]
    protocol = find_protocol("simpler-widowx", "simpler")
    assert (protocol.tasks, protocol.episodes) == (tuple(WIDOWX), 24)


def test_the_published_protocol_plays_each_episode_of_each_task_once(here):
    suite = make_suite("simpler-widowx", 1, image_size=16)
    protocol = find_protocol("simpler-widowx", "simpler")
    starts = held_out_starts(protocol.tasks, len(protocol.tasks) * protocol.episodes, HELD_OUT)
    played = sorted((start.task, suite.reset_options(start)["episode_id"]) for start in starts)
    suite.close()
    assert played == sorted((task, number) for task in WIDOWX for number in range(24))


def test_the_object_is_carried_to_its_place_with_one_picture_a_chunk(here):
    suite = make_suite("simpler-widowx", 1, image_size=32, tasks=[SPOON])
    start = EpisodeStart(SPOON, HELD_OUT)
    reach = [[0.025, -0.015, -0.05, 0, 0, 0, 1.0]] * 2
    close = [[0, 0, 0, 0, 0, 0, 0.0]]
    carry = [[0.05, 0.015, 0, 0, 0, 0, 0.0]] * 2
    release = [[0, 0, 0, 0, 0, 0, 1.0]] * 5
    from mani_skill.envs import BaseBridgeEnv

    BaseBridgeEnv.drawn = 0
    held = play(suite, start, reach + close)
    assert BaseBridgeEnv.drawn == suite.renders == 2
    assert held.info["is_src_obj_grasped"][0] == 1.0
    assert held.instruction == ("put the spoon on the towel",)
    np.testing.assert_allclose(held.state[0], [0.2, -0.03, 0.05, 0, 0, 0, 0.015, 0.015], atol=1e-6)
    done = play(suite, start, reach + close, carry, release)
    assert (done.success[0], done.terminated[0], done.executed[0]) == (True, True, 1)
    suite.close()


def test_the_default_renderer_draws_the_whole_camera_and_reduces_it(here):
    shapes = {}
    for renderer in ("tuned", "default"):
        suite = make_suite("simpler-widowx", 1, image_size=24, renderer=renderer)
        shapes[renderer] = play(suite, EpisodeStart(SPOON, 3)).images["ego"].shape
        suite.close()
    assert set(shapes.values()) == {(1, 24, 24, 3)}


@pytest.mark.parametrize("missing", [*PARTS, "both"])
def test_scenes_that_were_not_downloaded_are_one_message_with_the_commands(
    tmp_path, monkeypatch, missing
):
    for part in PARTS:
        if missing not in (part, "both"):
            (tmp_path / "data" / part).mkdir(parents=True)
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    with pytest.raises(UserError) as caught:
        make_suite("simpler-widowx", 1)
    for part, name in DOWNLOADS.items():
        lacks = missing == "both" or missing.startswith(part)
        assert (f"mani_skill.utils.download_asset {name} -y" in str(caught.value)) == lacks
    assert str(tmp_path) in str(caught.value)
