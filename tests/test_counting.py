"""The counting suite tells every mix-up, and its checker is not fooled."""

import dataclasses
import re

import numpy as np
import pytest

from envservers import registry
from envservers.counting import (
    TASKS,
    CountingSuite,
    check_observation,
    check_transition,
    success_step,
)
from envservers.registry import check_memory, config_options, make_suite
from vlarl.config.process_schema import EnvConfig
from vlarl.errors import UserError
from vlarl.types import EpisodeStart


def started(n=4, length=50):
    suite = CountingSuite(n, episode_length=length)
    starts = [EpisodeStart(TASKS[i % 2], 1000 + i) for i in range(n)]
    return suite, suite.reset(np.arange(n), starts)


def chunk(n, h=3, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, h, 3)).astype(np.float32)


def test_an_honest_transition_passes():
    suite, before = started()
    actions = chunk(4)
    check_transition(before, actions, suite.step(np.arange(4), actions))


@pytest.mark.parametrize("field", ["images", "state", "step", "seed", "env_ids", "executed"])
def test_rows_exchanged_in_any_field_are_caught(field):
    suite, before = started()
    suite.step(np.array([1]), chunk(1, 1))
    before = suite.step(np.arange(4), chunk(4))
    actions = chunk(4, seed=1)
    honest = suite.step(np.arange(4), actions)
    order = [1, 0, 2, 3]
    value = getattr(honest, field)
    if field == "executed":
        exchanged = value - 1
    elif field == "images":
        exchanged = {**value, "ego": value["ego"][order]}
    else:
        exchanged = value[order]
    with pytest.raises(AssertionError):
        check_transition(before, actions, dataclasses.replace(honest, **{field: exchanged}))


def test_an_observation_of_another_call_is_caught():
    suite, before = started()
    suite.step(np.arange(4), chunk(4))
    second = chunk(4, seed=1)
    after = suite.step(np.arange(4), second)
    with pytest.raises(AssertionError):
        check_transition(before, second, after)
    fresh = suite.reset(np.arange(4), [EpisodeStart(TASKS[0], i) for i in range(4)])
    with pytest.raises(AssertionError):
        check_transition(fresh, second, after)


def test_success_is_decided_by_the_seed_and_the_limit_truncates():
    lengths = [success_step(seed, TASKS[0], 10) for seed in range(400)]
    assert 0.4 < np.mean(np.array(lengths) <= 10) < 0.6
    suite = CountingSuite(400, episode_length=10)
    suite.reset(np.arange(400), [EpisodeStart(TASKS[0], seed) for seed in range(400)])
    end = suite.step(np.arange(400), np.zeros((400, 12, 3), np.float32))
    assert end.done.all()
    assert not (end.terminated & end.truncated).any()
    assert end.executed.tolist() == [min(length, 10) for length in lengths]
    assert end.success.tolist() == [length <= 10 for length in lengths]
    check_observation(end)


def test_restore_undoes_and_replays():
    suite, _ = started()
    suite.step(np.arange(4), chunk(4))
    blob = suite.snapshot()
    first = suite.step(np.arange(4), chunk(4, seed=2))
    suite.reset(np.array([2]), [EpisodeStart(TASKS[1], 5)])
    suite.restore(blob)
    second = suite.step(np.arange(4), chunk(4, seed=2))
    np.testing.assert_equal(vars(second), vars(first))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("countign", {}, "Did you mean 'counting'"),
        ("gym", {}, "unknown suite"),
        ("tabletop:3", {}, "unknown suite"),
        ("counting", {"episode_lenght": 3}, "Did you mean 'episode_length'"),
        ("counting", {"tasks": ["count_rde"]}, "unknown task 'count_rde'"),
        ("counting", {"num_envs": 3}, "no option 'num_envs'"),
        ("gym:CartPole-v1", {"env_id": "Pendulum-v1"}, "no option 'env_id'"),
    ],
)
def test_typos_are_named(name, options, message):
    with pytest.raises(UserError, match=message):
        make_suite(name, 2, **options)


def test_too_many_environments_are_refused_before_anything_is_built():
    with pytest.raises(UserError, match=r"MiB are free: lower env\.envs_per_server"):
        make_suite("counting", 10**9)
    with pytest.raises(UserError, match="at least 1"):
        make_suite("counting", 0)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("threads", "two", "a whole number; the default is 1"),
        ("threads", True, "a whole number"),
        ("image_size", 64.0, "a whole number"),
        ("terminate_on_success", "maybe", "true or false"),
        ("tasks", "spoon_on_towel", r"a list such as \[a, b\]"),
        ("tasks", [1], "a list"),
    ],
)
def test_an_option_of_another_type_is_named_with_what_is_expected(option, value, expected):
    message = rf"suite 'tabletop': option {option} = {re.escape(repr(value))}: must be {expected}"
    with pytest.raises(UserError, match=message):
        make_suite("tabletop", 1, **{option: value})


def test_options_that_may_be_none_and_whole_numbers_for_any_number():
    assert make_suite("tabletop", 1, tasks=None).spec.tasks
    suite = make_suite("counting", 1, seconds_per_step=0)
    assert suite.num_envs == 1


def test_memory_counts_the_images(monkeypatch):
    monkeypatch.setattr(registry, "available_memory", lambda: 2 * 2**30)
    check_memory("tabletop", 64, 2, {"image_size": 64})
    with pytest.raises(UserError, match=r"64 environments .* images of 1024 pixels"):
        check_memory("tabletop", 64, 2, {"image_size": 1024})
    with pytest.raises(UserError, match=r"lower .* env\.image_size"):
        make_suite("tabletop", 64, image_size=1024)


def test_memory_counts_the_scenes_of_tasks_that_environments_share(monkeypatch):
    monkeypatch.setattr(registry, "available_memory", lambda: 3 * 2**29)
    check_memory("libero", 12, 1, {"tasks": ["object/pick_up_the_milk_and_place_it_in_the_basket"]})
    with pytest.raises(UserError, match=r"12 environments of suite 'libero'"):
        check_memory("libero", 12, 1, {"split": "90"})


def test_a_config_becomes_constructor_options():
    config = EnvConfig(suite="counting", tasks=("count_blue",), image_size=8, max_steps=7)
    suite = make_suite(config.suite, 2, **config_options(config), threads=2)
    assert suite.spec.tasks == ("count_blue",)
    assert suite.spec.max_steps == 7
    assert suite.spec.cameras[0].height == 8
