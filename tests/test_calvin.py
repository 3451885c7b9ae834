"""CALVIN's adapter on a stand-in of its table: chains, starts, and which task counts when."""

import numpy as np
import pytest
from stand_in_environments import RECORDED, make_table

from envservers import registry
from envservers.calvin import starts, tasks
from envservers.calvin.repository import Repository
from envservers.calvin.simulator import CalvinSimulator
from envservers.held_out import HELD_OUT
from envservers.task_groups import find_protocol
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

UP = np.array([0, 0, 0.02, 0, 0, 0, 1], np.float32)
TABLE = {"led": 0, "lightbulb": 0, "slider": "right", "drawer": "closed", "grasped": 0}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECORDED / "pybullet"))
    monkeypatch.syspath_prepend(str(RECORDED / "calvin" / "calvin_env"))
    make_table(tmp_path / "calvin")
    return Repository(tmp_path / "calvin", tmp_path / "calvin/dataset/task_ABC_D/validation")


def test_a_chain_needs_what_the_tasks_before_it_lead_to():
    state = {**TABLE, "red_block": "table", "blue_block": "table", "pink_block": "slider_left"}
    lift, stack = "lift_red_block_table", "stack_block"
    assert tasks.is_chain(state, [lift, stack, "unstack_block"])
    assert not tasks.is_chain(state, [stack, lift])
    assert not tasks.is_chain(state, ["close_drawer"])
    assert not tasks.is_chain(state, ["open_drawer", "close_drawer"]), "two of a category"
    assert not tasks.is_chain(state, [lift, "place_in_drawer"]), "the drawer is closed"
    assert tasks.is_chain(state, ["open_drawer", lift, "place_in_drawer"])
    # On which of two blocks would not be said.
    other = {**state, "pink_block": "table"}
    assert not tasks.is_chain(other, [lift, stack])


def test_the_published_chains_are_those_that_its_generators_draw():
    chains = starts.published()
    assert len(chains) == starts.PUBLISHED == find_protocol("calvin", "long-horizon").episodes
    assert all(tasks.is_chain(state, chain) for state, chain in chains)
    states = tasks.initial_states()
    found = [sum(state == own for state, _ in chains) for own in states]
    assert sorted(set(found)) == [5, 6], "1000 chains, spread evenly"
    first = starts.drawn_chains(7, 1)[0]
    assert (states[7], first) in chains


def test_the_hash_is_that_of_pyhash():
    # Of "hello world", in the README of pyhash: its seed is 0, not FNV's usual offset.
    assert starts.fnv1_32("hello world") == 2805756500


def test_a_start_is_of_its_seed_alone_and_sets_what_it_says():
    for task in (tasks.CHAIN, "open_drawer"):
        for seed in (3, 4, HELD_OUT, HELD_OUT + 1000):
            one, other = starts.start_of(task, seed), starts.start_of(task, seed)
            assert one.tasks == other.tasks
            np.testing.assert_array_equal(one.scene, other.scene)
    wrapped = starts.start_of(tasks.CHAIN, HELD_OUT + starts.PUBLISHED)
    np.testing.assert_array_equal(wrapped.scene, starts.start_of(tasks.CHAIN, HELD_OUT).scene)
    for seed in range(10):
        assert starts.start_of("open_drawer", seed).scene[1] == 0
        assert starts.start_of("close_drawer", seed).scene[1] > 0.12
    assert {len(starts.start_of(tasks.CHAIN, seed).tasks) for seed in range(5)} == {5}


def chained(repository, *names):
    """A simulator that has begun this chain, with the drawer closed."""
    found = CalvinSimulator(repository, 24)
    found.reset(EpisodeStart("open_drawer", 0))
    found._tasks = names
    return found


def test_a_task_that_is_done_gives_way_to_the_next(repository):
    found = chained(repository, "open_drawer", "close_drawer")
    outcomes = [found.step(UP) for _ in range(7)]
    assert [outcome.reward for outcome in outcomes] == [0] * 6 + [1]
    assert outcomes[-1].instruction == "please close drawer"
    assert not outcomes[-1].success
    assert found.info() == {"tasks_done": 1, "task_steps": 0}
    # Counted from where the drawer is now, not from where the episode found it.
    ends = [found.step(-UP) for _ in range(7)]
    assert [outcome.success for outcome in ends] == [False] * 6 + [True]
    assert found.info()["tasks_done"] == 2


def test_each_task_has_its_own_time(repository):
    found = chained(repository, "open_drawer", "turn_on_led")
    stay = np.zeros(7, np.float32)
    for _ in range(tasks.SUBTASK_STEPS - 7):
        assert not found.step(stay).expired
    for _ in range(7):
        assert not found.step(UP).expired
    late = [found.step(stay).expired for _ in range(tasks.SUBTASK_STEPS)]
    assert late == [False] * (tasks.SUBTASK_STEPS - 1) + [True]


def test_actions_are_meters_radians_and_a_side_of_the_gripper(repository):
    found = chained(repository, "turn_on_led")
    before = found.state()
    action = np.array([0.01, -0.02, 0.5, 0.05, 0, -0.025, -0.3], np.float32)
    found.step(action)
    moved = found.state() - before
    np.testing.assert_allclose(moved[:6], [0.01, -0.02, 0.02, 0.05, 0, -0.025], atol=1e-6)
    assert found.state()[14] == -1
    assert action[0] == np.float32(0.01), "the caller's action is left alone"


def test_nothing_is_drawn_until_somebody_looks(repository):
    found = chained(repository, "turn_on_led")
    found.step(UP)
    assert [camera.renders for camera in found._cameras] == [0, 0]
    pictures = found.images()
    assert {view: picture.shape for view, picture in pictures.items()} == {
        "ego": (24, 24, 3),
        "cam_right_wrist": (24, 24, 3),
    }
    assert [camera.renders for camera in found._cameras] == [1, 1]


def test_a_second_simulation_is_built_in_its_own_client(repository):
    import pybullet

    pybullet.MADE.clear()
    first, second = repository.environment(), repository.environment()
    assert [first.cid] * 2 + [second.cid] * 2 == pybullet.MADE
    assert first.cid != second.cid
    pybullet.createVisualShape(shapeType=3)
    assert pybullet.MADE[-1] == 0, "afterwards as before"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["open_drawr"], "Did you mean 'open_drawer'"),
        (["stack_block"], "part of chains only"),
        (["chain", "chain"], "each once"),
    ],
)
def test_what_there_is_none_of_is_refused(names, words):
    with pytest.raises(UserError, match=words):
        registry.describe_suite("calvin", tasks=names)
