"""RoboTwin's scenes and DOMINO's rules, against stand-ins; what is said of missing scenes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from stand_in_arms import ARMS, RECORDED, environment, lay_out

from envservers.client import spawn_server
from envservers.domino.checkout import CheckoutRuntime
from envservers.domino.simulator import DominoSimulator
from envservers.domino.tasks import TASKS as MOVING
from envservers.held_out import HELD_OUT
from envservers.registry import describe_suite
from envservers.robotwin.runtime import PackageRuntime
from envservers.robotwin.scenes import EVALUATION, Scenes, seed_of
from envservers.robotwin.simulator import RoboTwinSimulator
from envservers.robotwin.tasks import LIMITS
from envservers.robotwin.tasks import TASKS as ALL
from envservers.simulator import Outcome
from envservers.task_groups import expand, find_protocol
from vlarl.config.embodiments import load_embodiment
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

OPEN, CLOSED = 1.0, 0.0
STAND_INS = ("recorded_arms", "robotwin", "envs", "eval_metrics", "generate_episode_instructions")


@pytest.fixture
def options(tmp_path, monkeypatch):
    """The stand-ins on the path of this very process, and gone from it afterwards."""
    found = lay_out(tmp_path)
    monkeypatch.setenv("ASSETS_PATH", "")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield found
    sys.path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] in STAND_INS]:
        del sys.modules[name]


def robotwin(options, difficulty="easy", expert_check=True):
    runtime = PackageRuntime(options["robotwin"]["assets"], difficulty, "mplib", "unseen")
    return Scenes(runtime, expert_check)


def arms(first=0.0, second=0.0, gripper=OPEN):
    """[14] the joints that the stand-in looks at."""
    action = np.zeros(14, np.float32)
    action[[0, 7]], action[1], action[[6, 13]] = first, second, gripper
    return action


def domino(options, level=0):
    checkout = Path(options["domino"]["checkout"])
    runtime = CheckoutRuntime(checkout, "clean", level, "unseen")
    return DominoSimulator(Scenes(runtime, True), 24, LIMITS, runtime)


def test_fifty_tasks_of_which_thirty_five_have_objects_that_move():
    assert len(ALL) == len(set(ALL)) == 50
    assert len(MOVING) == 35
    assert set(MOVING) < set(ALL)
    assert "blocks_ranking_rgb" not in MOVING
    assert expand("domino", ["domino-35"]) == MOVING
    assert find_protocol("robotwin", "robotwin-50").episodes == 100
    assert find_protocol("robocasa-gr1", "tabletop-24").episodes == 50
    assert len(expand("robocasa-gr1", ["put-away", "move"])) == 24


def test_every_task_has_its_own_limit_and_an_option_sets_all():
    assert describe_suite("robotwin").max_steps == LIMITS["put_bottles_dustbin"]
    assert describe_suite("robotwin", tasks=ARMS).max_steps == LIMITS["place_shoe"]
    assert describe_suite("domino", tasks=ARMS, max_steps=9).max_steps == 9


@pytest.mark.parametrize("suite", ["robocasa-gr1", "robotwin", "domino"])
def test_spec_and_embodiment_agree(suite):
    spec = describe_suite(suite, image_size=48)
    robot = load_embodiment(spec.embodiment)
    assert robot.channels == spec.channels
    assert robot.cameras == tuple(camera.name for camera in spec.cameras)
    assert {camera.height for camera in spec.cameras} == {48}


@pytest.mark.parametrize(
    ("suite", "options", "said"),
    [
        ("robocasa-gr1", {"tasks": ["PnPCupToDrawer"]}, "Did you mean 'PnPCupToDrawerClose'"),
        ("robocasa-gr1", {"picture": "all"}, "choose one of crop, whole"),
        ("robotwin", {"tasks": ["place_shoes"]}, "Did you mean 'place_shoe'"),
        ("robotwin", {"tasks": []}, "name at least one"),
        ("robotwin", {"difficulty": "medium"}, "choose one of easy, hard"),
        ("robotwin", {"planner": "rrt"}, "choose one of mplib, curobo"),
        ("robotwin", {"image_size": 0}, "image_size = 0: must be at least 1"),
        ("domino", {"tasks": ["lift_pot"]}, "unknown task 'lift_pot'"),
        ("domino", {"level": 4}, "choose one of 0, 1, 2, 3"),
    ],
)
def test_a_mistake_is_one_message(suite, options, said):
    with pytest.raises(UserError, match=said):
        describe_suite(suite, **options)


def test_no_training_seed_is_one_of_the_benchmarks_own_evaluation():
    assert [seed_of(HELD_OUT + n) for n in (0, 7)] == [EVALUATION, EVALUATION + 7]
    training = {seed_of(seed) for seed in (0, EVALUATION - 1, EVALUATION, HELD_OUT - 1)}
    assert not training & set(range(EVALUATION, EVALUATION + HELD_OUT))
    assert len(training) == 4


def test_seeds_that_cannot_be_played_have_others_in_their_place(options):
    scenes = robotwin(options)
    # In the stand-in 3 is not stable, and the expert fails on 4.
    for seed in (3, 4):
        task, scene = scenes.open("place_shoe", seed)
        assert scene.seed == 10_000_000 + seed
        assert task.seed == scene.seed
        again, known = scenes.open("place_shoe", seed)
        assert known is scene
        assert again is not task
    _, unchecked = robotwin(options, expert_check=False).open("place_shoe", 4)
    assert unchecked.seed == 4


def test_a_seed_without_any_scene_says_why(options, monkeypatch):
    scenes = robotwin(options)
    from recorded_arms import ArmsTask

    monkeypatch.setattr(ArmsTask, "check_success", lambda self: False)
    with pytest.raises(ValueError, match=r"none of 40 scenes can be played.*the expert fails"):
        scenes.open("place_shoe", 0)


def test_success_is_the_tasks_own_and_the_sentence_the_seeds(options):
    scenes = robotwin(options)
    one, other = (RoboTwinSimulator(scenes, 24, LIMITS) for _ in range(2))
    words = one.reset(EpisodeStart("place_shoe", 1))
    assert other.reset(EpisodeStart("place_shoe", 1)) == words
    assert "041_shoe/base1" in words
    assert len({one.reset(EpisodeStart("place_shoe", seed)) for seed in (0, 1, 2, 5, 6)}) > 1
    other.step(arms(0.5))
    np.testing.assert_allclose(other.state(), arms(0.5))
    assert not other.step(arms(0.9)).success
    assert other.step(arms(1.1)) == Outcome(1.0, True)
    assert other.images()["ego"].shape == (24, 32, 3)


def test_lamps_flicker_alike_whatever_else_is_played(options):
    scenes = robotwin(options, "hard")
    alone, beside, third = (RoboTwinSimulator(scenes, 24, LIMITS) for _ in range(3))
    start = EpisodeStart("click_bell", 2)
    alone.reset(start)
    pictures = [alone.images()["ego"] for _ in range(4)]
    assert len({picture.tobytes() for picture in pictures}) > 1
    beside.reset(start)
    for expected in pictures:
        np.testing.assert_array_equal(beside.images()["ego"], expected)
        third.reset(EpisodeStart("place_shoe", 6))
        third.images()


def test_an_object_that_leaves_the_table_ends_the_episode(options):
    simulator = domino(options, level=3)
    simulator.reset(EpisodeStart("place_shoe", 0))
    for _ in range(11):
        assert not simulator.step(arms()).failed
    scored = simulator.info()["manipulation_score"]
    assert simulator.step(arms()).failed
    assert simulator.info()["penalty_factor"] == 0.5
    assert simulator.info()["manipulation_score"] < scored


def test_an_object_that_is_touched_no_longer_leaves(options):
    simulator = domino(options, level=3)
    simulator.reset(EpisodeStart("place_shoe", 0))
    simulator.step(arms(gripper=CLOSED))
    assert not any(simulator.step(arms()).failed for _ in range(30))


def test_success_counts_only_for_what_was_lifted(options):
    simulator = domino(options)
    simulator.reset(EpisodeStart("place_shoe", 0))
    assert simulator.step(arms(1.5)) == Outcome(0.0, False, failed=True)
    assert simulator.info()["route_completion"] < 100
    simulator.reset(EpisodeStart("place_shoe", 0))
    simulator.step(arms(0.0, second=0.1, gripper=CLOSED))
    assert simulator.step(arms(1.5)) == Outcome(1.0, True)
    assert simulator.info()["manipulation_score"] == 100.0


def test_a_way_that_leads_astray_is_left_out_and_the_level_is_the_options(options):
    simulator = domino(options, level=2)
    # The stand-in refuses the motion of scene 5, and of the next the expert fails.
    simulator.reset(EpisodeStart("place_shoe", 5))
    assert simulator.task.seed == 20_000_005
    assert simulator.task.speed == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("suite", "given", "said"),
    [
        ("robocasa-gr1", {}, r"lacks objects/sketchfab.*download_tabletop_assets -y"),
        ("robotwin", {"assets": ""}, r"where its scenes are: run .*robotwin-download-assets"),
        ("robotwin", {"assets": "nowhere"}, "lacks background_texture"),
        ("domino", {"checkout": ""}, "where its program is: git clone https"),
        ("domino", {"checkout": "nowhere"}, "lacks envs, script/eval_metrics.py"),
    ],
)
def test_missing_scenes_are_one_message_with_the_command(suite, given, said, tmp_path, monkeypatch):
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    # The modules, without the folders that are fetched.
    monkeypatch.setenv("PYTHONPATH", f"{environment(tmp_path)['PYTHONPATH']}:{RECORDED}")
    for name in ("ROBOTWIN_ASSETS_ROOT", "DOMINO_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=said):
        spawn_server(suite, 1, given, python=sys.executable)
