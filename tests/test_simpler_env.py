"""SimplerEnv's adapter on a stand-in: which start, what the robots are told, when time is up."""

import sys

import numpy as np
import pytest
from stand_in_environments import RECORDED

from actors.episodes import held_out_starts
from envservers import registry
from envservers.held_out import HELD_OUT
from envservers.simpler import simulator, tasks
from envservers.simpler.rotation import axis_times_angle
from envservers.task_groups import expand, find_protocol
from vlarl.errors import UserError
from vlarl.types import EpisodeStart


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("MS2_ASSET_DIR", raising=False)
    code = str(RECORDED / "simpler-env")
    made = []

    def make(task, **options):
        options = {"image_size": 24, "code": code, "tasks": [task], **options}
        made.append(registry.make_suite("simpler-env", 1, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def begin(suite, seed):
    return suite.reset(np.arange(1), [EpisodeStart(suite.spec.tasks[0], seed)])


def world(suite):
    """The stand-in behind the only slot."""
    return suite._simulators[0]._environment


def test_held_out_seeds_are_the_published_starts(suite):
    found = suite("widowx_spoon_on_towel")
    places = []
    for number in range(25):
        begin(found, HELD_OUT + number)
        places.append((*world(found).object, world(found).turn))
    assert len(set(places)) == 24
    assert places[24] == places[0]


def test_each_task_gets_its_published_starts_in_order_beside_others(suite):
    """An evaluation goes over the tasks in turn."""
    both = ["widowx_spoon_on_towel", "widowx_carrot_on_plate"]
    found = suite(both[0], tasks=both)
    places = {task: [] for task in both}
    for start in held_out_starts(both, 48, HELD_OUT):
        found.reset(np.arange(1), [start])
        places[start.task].append((*world(found).object, world(found).turn))
    alone = suite(both[0])
    for number, place in enumerate(places[both[0]]):
        begin(alone, HELD_OUT + number)
        assert place == (*world(alone).object, world(alone).turn)
    assert len(set(places[both[1]])) == 24


def test_training_never_begins_where_the_evaluation_does_but_near(suite):
    found = suite("widowx_spoon_on_towel")
    begin(found, 0)
    published = [place[0] for place in world(found)._xy_configs]
    for seed in range(20):
        begin(found, seed)
        away = np.abs(np.array(published) - world(found).object).max(axis=1)
        assert 0 < away.min() <= tasks.TASKS["widowx_spoon_on_towel"].spread
    assert len(world(found)._xy_configs) == 12, "what was replaced is put back"


def test_the_can_lies_on_the_grid(suite):
    found = suite("google_robot_pick_coke_can")
    places = []
    for number in (0, 4, 24):
        begin(found, HELD_OUT + number)
        places.append(world(found).object.tolist())
    np.testing.assert_allclose(places, [[-0.35, -0.02], [-0.35, 0.42], [-0.12, 0.42]])


def test_the_two_robots_read_the_gripper_in_their_own_ways(suite):
    for task, given, told in (
        ("widowx_stack_cube", [0.0, 0.4, 0.6, 1.0], [-1, -1, 1, 1]),
        ("google_robot_move_near", [-1.0, -0.25, 0.0, 1.0], [-1, -0.25, 0, 1]),
    ):
        found = suite(task)
        begin(found, HELD_OUT)
        for value, expected in zip(given, told, strict=True):
            found.step(np.arange(1), np.array([[[0, 0, 0, 0, 0, 0, value]]], np.float32))
            assert world(found).gripper == pytest.approx(expected)


def test_each_task_ends_in_its_own_time(suite):
    found = suite("unused", tasks=["widowx_spoon_on_towel", "widowx_put_eggplant_in_basket"])
    assert found.spec.max_steps == 120
    begin(found, HELD_OUT)
    step = found.step(np.arange(1), np.zeros((1, 100, 7), np.float32))
    assert step.executed[0] == 60
    assert step.truncated[0]
    assert not step.terminated[0]


def test_a_long_task_says_what_is_next_unless_told_otherwise(suite):
    found = suite("google_robot_place_apple_in_closed_top_drawer")
    assert begin(found, HELD_OUT).instruction == ("open top drawer",)
    lift = np.tile(np.array([0, 0, 0.3, 0, 0, 0, 0], np.float32), (1, 1, 1))
    assert found.step(np.arange(1), lift).instruction == ("place apple into top drawer",)
    start = EpisodeStart(found.spec.tasks[0], HELD_OUT, instruction="go on")
    found.reset(np.arange(1), [start])
    assert found.step(np.arange(1), lift).instruction == ("go on",)


def test_nothing_is_drawn_but_at_the_end_of_a_chunk(suite):
    found = suite("widowx_stack_cube")
    begin(found, HELD_OUT)
    before = world(found).renders
    found.step(np.arange(1), np.zeros((1, 5, 7), np.float32))
    assert world(found).renders - before == 1


def test_another_task_is_another_environment(suite):
    found = simulator.SimplerSimulator(24, 1)
    suite("widowx_stack_cube")
    found.prepare("widowx_stack_cube")
    first = found._environment
    found.prepare("widowx_stack_cube")
    assert found._environment is first
    found.prepare("widowx_carrot_on_plate")
    assert first.closed
    assert found._environment.task == "widowx_carrot_on_plate"


def rotation(axis, angle):
    """[3, 3] the turn about one of the fixed axes."""
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[[i, j], [i, j]] = np.cos(angle)
    matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)
    return matrix


def test_angles_about_the_fixed_axes_become_axis_times_angle():
    random = np.random.default_rng(0)
    for _ in range(20):
        angles = random.uniform(-1.5, 1.5, 3)
        wanted = rotation(2, angles[2]) @ rotation(1, angles[1]) @ rotation(0, angles[0])
        vector = axis_times_angle(*angles)
        angle = np.linalg.norm(vector)
        assert np.trace(wanted) == pytest.approx(1 + 2 * np.cos(angle))
        np.testing.assert_allclose(wanted @ vector, vector, atol=1e-9)
        # The antisymmetric part says which of the two ways around.
        odd = np.array([wanted[2, 1], wanted[0, 2], wanted[1, 0]])
        odd -= np.array([wanted[1, 2], wanted[2, 0], wanted[0, 1]])
        assert odd @ vector > 0
    np.testing.assert_array_equal(axis_times_angle(0, 0, 0), np.zeros(3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"robot": "widow"}, "Did you mean 'widowx'"),
        ({"tasks": ["widowx_stack_cube", "google_robot_move_near"]}, "tasks of both robots"),
        ({"tasks": ["widowx", "widowx_stack_cube"]}, "named twice"),
    ],
)
def test_what_there_is_none_of_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        registry.describe_suite("simpler-env", **options)


def test_the_published_evaluation_is_24_starts_of_four_tasks():
    protocol = find_protocol("simpler-env", "widowx")
    assert protocol.episodes == 24
    assert expand("simpler-env", protocol.tasks) == registry.describe_suite("simpler-env").tasks
    google = registry.describe_suite("simpler-env", robot="google_robot")
    assert (google.control_hz, google.embodiment) == (3.0, "google_robot_eef")
    assert len(google.tasks) == 19
