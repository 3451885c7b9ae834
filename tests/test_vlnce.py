"""VLN-CE's adapter on a room of its own: which episode, how far, how well."""

import itertools
import math
import sys

import numpy as np
import pytest
from stand_in_environments import RECORDED, make_walks

from envservers import registry
from envservers.held_out import HELD_OUT
from envservers.task_groups import expand, find_protocol
from envservers.vlnce import tasks
from envservers.vlnce.metrics import PathMetrics
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

AHEAD = [0.5, 0.0, 0.0]
STAY = [0.0, 0.0, 0.0]


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECORDED / "habitat"))
    made = []

    def make(benchmark="r2r", **options):
        if not (tmp_path / "datasets").exists():
            make_walks(tmp_path)
        options = {"image_size": 24, "data": str(tmp_path), "benchmark": benchmark, **options}
        made.append(registry.make_suite("vln-ce", 1, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def play(suite, seed, *waypoints):
    """The last time step of an episode that goes through these waypoints."""
    task = suite.spec.tasks[0]
    step = suite.reset(np.arange(1), [EpisodeStart(task, seed)])
    for waypoint in waypoints:
        step = suite.step(np.arange(1), np.array([[waypoint]], np.float32))
    return step


def test_held_out_seeds_are_the_evaluation_split_in_its_order(suite):
    found = suite()
    words = [play(found, HELD_OUT + n).instruction[0] for n in range(7)]
    assert words == [*(f"Walk {n} in val_unseen." for n in range(6)), "Walk 0 in val_unseen."]
    drawn = {play(found, seed).instruction[0] for seed in range(40)}
    assert drawn == {f"Walk {n} in train." for n in range(6)}


def test_rxr_keeps_english_and_has_its_own_camera(suite):
    found = suite("rxr")
    assert play(found, HELD_OUT).instruction == ("Walk 0 in val_unseen.",)
    assert [(camera.height, camera.width) for camera in found.spec.cameras] == [(24, 32)]
    assert play(found, HELD_OUT).images["ego"].shape == (1, 24, 32, 3)


def test_a_stop_near_the_goal_is_a_success_and_one_elsewhere_a_failure(suite):
    found = suite()
    there = play(found, HELD_OUT, *[AHEAD] * 5, STAY, STAY)
    assert there.success[0]
    assert there.terminated[0]
    # Two and a half meters gone, of five to go: the shortest way is not that to the nearest edge.
    assert there.info["distance_to_goal"][0] == pytest.approx(2.5)
    assert there.info["spl"][0] == 1
    short = play(found, HELD_OUT, *[AHEAD] * 2, STAY, STAY)
    assert short.terminated[0]
    assert not short.success[0]
    assert short.info["spl"][0] == 0
    past = play(found, HELD_OUT, *[AHEAD] * 10, *[[-0.5, 0, 0]] * 10, STAY, STAY)
    assert past.info["oracle_success"][0] == 1
    assert not past.success[0]
    assert past.info["path_length"][0] == pytest.approx(10)


def test_a_waypoint_goes_ahead_and_to_the_left_of_where_one_looks(suite):
    found = suite()
    half = math.pi / 4
    step = play(found, HELD_OUT + 2, [0.3, 0.4, half], [0, 0, half], [0.5, 0, 0])
    np.testing.assert_allclose(step.state[0], [0.3, 0.9, math.pi / 2], atol=1e-5)
    # Half a meter and a turn of 45 degrees are 2 + 3 of VLN-CE's actions, twice, less the way.
    assert step.info["actions"][0] == 2 + 3 + 3 + 2


def test_who_asks_for_more_than_a_waypoint_takes_gets_what_it_takes(suite):
    step = play(suite(), HELD_OUT, [2.0, 0.0, 3.0])
    np.testing.assert_allclose(step.state[0], [0.5, 0, 0.7854], atol=1e-4)


def test_walls_stop_the_agent_of_rxr_and_let_that_of_r2r_slide(suite):
    left = [0.4, 0.3, 0.0]
    r2r, rxr = (play(suite(name), HELD_OUT, *[left] * 29) for name in ("r2r", "rxr"))
    assert r2r.state[0][1] == pytest.approx(8, abs=1e-3)
    assert rxr.state[0][1] < 8
    assert r2r.state[0][0] == pytest.approx(10.5, abs=1e-3)


def warped(path, reference):
    """The least sum of distances over every monotone pairing, by trying all of them."""
    rows, columns = len(path), len(reference)

    def cost(i, j):
        own = float(np.linalg.norm(path[i] - reference[j]))
        if (i, j) == (rows - 1, columns - 1):
            return own
        moves = [(i + 1, j), (i, j + 1), (i + 1, j + 1)]
        return own + min(cost(a, b) for a, b in moves if a < rows and b < columns)

    return cost(0, 0)


def test_ndtw_is_the_best_of_all_pairings():
    random = np.random.default_rng(0)
    path, reference = random.normal(size=(5, 3)), random.normal(size=(4, 3))
    metrics = PathMetrics(np.zeros(3), 5.0, reference)
    for place in itertools.chain.from_iterable((p, p) for p in path):
        metrics.arrive(place, 5.0)
    distance = -math.log(metrics.values()["ndtw"]) * len(reference) * tasks.SUCCESS_DISTANCE
    assert distance == pytest.approx(warped(path, reference))
    assert PathMetrics.restore(metrics.state()).values() == metrics.values()


def test_following_the_demonstration_exactly_is_worth_one(suite):
    step = play(suite(), HELD_OUT, [0.0, 0.0, 0.3], [0.0, 0.0, -0.3], *[AHEAD] * 10)
    # Half steps lie between the reference's meters: 5 of 11 places are half a meter off.
    assert step.info["ndtw"][0] == pytest.approx(math.exp(-5 * 0.5 / (6 * 3)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"benchmark": "r2"}, "Did you mean 'r2r'"),
        ({"tasks": ["rxr"]}, "another suite"),
        ({"scenes": 0}, "scenes = 0"),
    ],
)
def test_what_there_is_none_of_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        registry.describe_suite("vln-ce", **options)


def test_without_the_simulator_it_says_how_it_gets_here(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "habitat_sim", raising=False)
    make_walks(tmp_path)
    with pytest.raises(UserError, match=r"no habitat-sim in .*build it from source"):
        registry.make_suite("vln-ce", 1, data=str(tmp_path))


def test_the_published_evaluation_is_every_episode_once():
    protocol = find_protocol("vln-ce", "val-unseen")
    assert expand("vln-ce", protocol.tasks) == registry.describe_suite("vln-ce").tasks
