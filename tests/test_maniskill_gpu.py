"""ManiSkill with the GPU's physics, against a stand-in of its interface: a GPU there need not be.

The contract of all suites is `test_suite_contract.py`'s. What rows, states and dealt starts are in
ManiSkill itself, `test_maniskill_simulator.py` tries on a processor.
"""

import sys
from pathlib import Path
from zipfile import BadZipFile

import gymnasium
import numpy as np
import pytest
from test_suite_contract import (  # noqa: F401, collected here with this file's client
    options_of,
    test_a_chunk_is_its_control_steps_one_after_the_other,
    test_a_snapshot_goes_on_bit_for_bit,
    test_an_episode_begins_as_its_start_says_in_any_slot_and_after_anything,
    test_an_episode_ends_at_its_limit_and_then_takes_no_more,
    test_what_is_no_action_is_refused,
)

from envservers.inprocess import InprocessClient
from envservers.maniskill import cuda
from envservers.registry import describe_suite, make_suite
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

FAKE = Path(__file__).parent / "stand_ins" / "maniskill"
PICK, ROLL = "PickCube-v1", "RollBall-v1"
TASKS = {"tasks": [PICK, ROLL], "renderer": "default"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The stand-in in this process, a torch that says it is for GPUs, and a home of its own."""
    before = set(gymnasium.registry)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setattr(cuda, "version", lambda _: "2.13.0")
    yield
    fakes = ("mani_skill", "sapien")
    for name in [name for name in sys.modules if name.partition(".")[0] in fakes]:
        del sys.modules[name]
    for task in set(gymnasium.registry) - before:
        gymnasium.registry.pop(task)


@pytest.fixture
def client():
    options = {**options_of("maniskill"), **TASKS, "physics": "gpu"}
    found = InprocessClient(make_suite("maniskill", 2, **options))
    yield found
    found.close()


def suite_of(num_envs, physics="gpu", **options):
    return make_suite(
        "maniskill", num_envs, **{"image_size": 16, **TASKS, "physics": physics, **options}
    )


def actions_of(n, h, seed=0):
    """[n, h, 7] small motions."""
    return np.random.default_rng(seed).uniform(-0.03, 0.03, (n, h, 7)).astype(np.float32)


def assert_same(one, other):
    for name in ("state", "success", "terminated", "truncated", "step"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    for name, images in one.images.items():
        np.testing.assert_array_equal(images, other.images[name], name)
    for name, values in one.info.items():
        np.testing.assert_array_equal(values, other.info[name], name)


def test_a_start_is_the_same_scene_as_on_the_processor_in_whatever_company():
    starts = [EpisodeStart(task, seed) for task, seed in ((PICK, 3), (ROLL, 4), (PICK, 5))]
    # Turns are told to the two in different words.
    actions = actions_of(3, 4) * [1, 1, 1, 0, 0, 0, 1]
    gpu = suite_of(3)
    together = gpu.reset(np.arange(3), starts)
    after = gpu.step(np.arange(3), actions)
    processor = suite_of(1, "cpu")
    for row, start in enumerate(starts):
        alone = processor.reset(np.zeros(1, np.int64), [start])
        np.testing.assert_array_equal(alone.state[0], together.state[row])
        np.testing.assert_array_equal(alone.images["ego"][0], together.images["ego"][row])
        alone = processor.step(np.zeros(1, np.int64), actions[row : row + 1])
        np.testing.assert_array_equal(alone.images["ego"][0], after.images["ego"][row])
        np.testing.assert_allclose(alone.reward[0], after.reward[row])
        for name, values in alone.info.items():
            np.testing.assert_allclose(values[0], after.info[name][row], rtol=1e-6, err_msg=name)
    assert len(set(after.info["cube_distance"])) == 3, "each row's own, not the mean of all"
    assert len({image.tobytes() for image in together.images["ego"]}) == 3
    gpu.close()
    processor.close()


def test_slots_that_take_turns_are_what_they_are_together():
    starts = [EpisodeStart(PICK, seed) for seed in range(4)]
    suite, ids = suite_of(4), np.arange(4)
    suite.reset(ids, starts)
    together = [suite.step(ids, actions_of(4, 3, seed)) for seed in (0, 1)]
    suite.reset(ids, starts)
    for seed, whole in enumerate(together):
        for part in (np.array([2, 0]), np.array([3]), np.array([1])):
            seen = suite.step(part, actions_of(4, 3, seed)[part])
            np.testing.assert_array_equal(seen.state, whole.state[part])
            np.testing.assert_array_equal(seen.reward, whole.reward[part])
            np.testing.assert_array_equal(seen.images["ego"], whole.images["ego"][part])
    # Of the four the last one's turn has moved the others on: they are put back to be snapshot.
    blob = suite.snapshot()
    suite.reset(ids, starts[::-1])
    suite.restore(blob)
    still = np.zeros((4, 1, 7), np.float32)
    after = suite.step(ids, still)
    suite.reset(ids, starts)
    for seed in (0, 1):
        suite.step(ids, actions_of(4, 3, seed))
    assert_same(after, suite.step(ids, still))
    suite.close()


def test_an_episode_that_ends_early_stays_as_it_ended():
    toward = np.array([0.05, 0.0, -0.05, 0, 0, 0, 1.0], np.float32)
    suite, ids = suite_of(2, max_steps=40), np.arange(2)
    seeds = []
    for seed in range(60):
        suite.reset(ids[:1], [EpisodeStart(PICK, seed)])
        last = suite.step(ids[:1], np.tile(toward, (1, 8, 1)), record=True)
        if last.success[0]:
            seeds.append((seed, last))
    seed, alone = seeds[0]
    suite.reset(ids, [EpisodeStart(PICK, seed), EpisodeStart(PICK, 1000)])
    both = suite.step(ids, np.stack([np.tile(toward, (8, 1)), np.zeros((8, 7))]), record=True)
    assert both.executed.tolist() == [alone.executed[0], 8]
    assert both.terminated.tolist() == [True, False]
    np.testing.assert_array_equal(both.state[0], alone.state[0])
    np.testing.assert_array_equal(both.images["ego"][0], both.frames[0][-1])
    np.testing.assert_array_equal(both.frames[0], alone.frames[0])
    suite.close()


def test_all_slots_of_a_task_step_and_are_drawn_together():
    suite, ids = suite_of(6), np.arange(6)
    suite.reset(ids, [EpisodeStart((PICK, ROLL)[i % 2], i) for i in range(6)])
    from mani_skill.envs.table_top import TableTopEnv

    stepped, drawn = TableTopEnv.stepped, TableTopEnv.drawn
    suite.step(ids, actions_of(6, 5))
    assert TableTopEnv.stepped - stepped == 2 * 5, "two tasks, a chunk of five"
    assert TableTopEnv.drawn - drawn == 2
    suite.close()


def test_what_a_task_remembers_beside_the_physics_is_the_slots_own():
    suite, ids = suite_of(2), np.arange(2)
    suite.reset(ids, [EpisodeStart(ROLL, 0), EpisodeStart(ROLL, 1)])
    simulator = suite._simulator(0)
    ball = simulator.place.pose_of("ball")[:3]
    grasped = []
    for _ in range(20):
        away = simulator.place.pose_of("ball")[:3] - simulator.place.poses()[1][:3]
        step = np.zeros((1, 1, 7), np.float32)
        step[0, 0, :3] = np.clip(away, -0.1, 0.1)
        grasped.append(suite.step(ids[:1], step).info["is_grasped"][0])
    assert grasped[0] == 0.0
    assert grasped[-1] == 1.0
    assert np.linalg.norm(simulator.place.pose_of("ball")[:3] - ball) > 1e-4
    blob = suite.snapshot()
    still = np.zeros((2, 1, 7), np.float32)
    np.testing.assert_array_equal(suite.step(ids, still).info["is_grasped"], [1.0, 0.0])
    suite.reset(ids, [EpisodeStart(ROLL, 1), EpisodeStart(ROLL, 0)])
    np.testing.assert_array_equal(suite.step(ids, still).info["is_grasped"], [0.0, 0.0])
    suite.restore(blob)
    np.testing.assert_array_equal(suite.step(ids, still).info["is_grasped"], [1.0, 0.0])
    suite.close()


def test_a_slot_that_changes_its_task_leaves_its_row_to_the_next():
    suite, slot = suite_of(1), np.zeros(1, np.int64)
    first = suite.reset(slot, [EpisodeStart(PICK, 3)])
    for start in [EpisodeStart(ROLL, 3), EpisodeStart(PICK, 4), EpisodeStart(ROLL, 5)] * 2:
        suite.reset(slot, [start])
        suite.step(slot, actions_of(1, 2))
    assert_same(suite.reset(slot, [EpisodeStart(PICK, 3)]), first)
    suite.close()
    suite.reset(slot, [EpisodeStart(PICK, 3)])
    suite.close()


def test_what_does_not_fit_is_refused_and_changes_nothing():
    suite, ids = suite_of(2), np.arange(2)
    before = suite.reset(ids, [EpisodeStart(PICK, 0), EpisodeStart(PICK, 1)])
    place = suite._simulator(0).place
    kept = place.kept()
    with pytest.raises(ValueError, match="has 11 numbers, not 12"):
        place.put(type(kept)(kept.physics[:-1], {}))
    np.testing.assert_array_equal(place.state(), before.state[0])
    processor = suite_of(2, "cpu")
    processor.reset(ids, [EpisodeStart(PICK, 0), EpisodeStart(PICK, 1)])
    of_cpu, of_gpu = processor.snapshot(), suite.snapshot()
    for one, blob, made in ((suite, of_cpu, "cpu"), (processor, of_gpu, "gpu")):
        with pytest.raises(ValueError, match=f"made with physics = {made}"):
            one.restore(blob)
    suite.close()
    processor.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"physics": "tpu"}, "choose one of cpu, gpu"),
        ({"physics": "gpu", "tasks": ["PegInsertionSide"]}, "take physics = cpu"),
    ],
)
def test_a_mistake_is_one_message(options, said):
    with pytest.raises(UserError, match=said):
        describe_suite("maniskill", **options)


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("gpu", r"finds none, and torch is 2\.13\.0\."),
        ("torch", r"finds one, and torch is .*cpu\."),
    ],
)
def test_no_gpu_is_one_message_with_the_remedy(monkeypatch, lacks, said):
    import sapien

    def no_device(name):
        raise RuntimeError(f'failed to find device "{name}"')

    if lacks == "gpu":
        monkeypatch.setattr(sapien, "Device", no_device)
    else:
        monkeypatch.setattr(cuda, "version", lambda _: "2.13.0+cpu")
    with pytest.raises(UserError, match=rf"needs an NVIDIA GPU.*{said}.*env\.options\.physics=cpu"):
        suite_of(1)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("can only be enabled once"), "take one of its own"),
        (OSError("libcuda.so: cannot open"), r"without a network bring it to .*patch0"),
        (BadZipFile("File is not a zip file"), "physx-precompiled"),
    ],
)
def test_a_gpu_that_physx_cannot_use_is_one_message(monkeypatch, error, said):
    from sapien import physx

    def enable_gpu():
        raise error

    monkeypatch.setattr(physx, "enable_gpu", enable_gpu)
    with pytest.raises(UserError, match=said):
        suite_of(1)
