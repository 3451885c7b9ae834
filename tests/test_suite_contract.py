"""Every suite of the registry behind the same contract, each through a real env server.

Those that run in an environment of their own are tried where it is installed (`make suites`).
"""

import os

import numpy as np
import pytest

from envservers import environments, registry
from envservers.client import spawn_server
from envservers.counting import success_step
from envservers.environments.elsewhere import ELSEWHERE
from envservers.task_groups import published_metrics
from vlarl.config.embodiments import load_embodiment
from vlarl.errors import EnvServerError, UserError
from vlarl.types import EpisodeStart

GYM = "gym:envservers.tabletop.gym_env:vlarl/Tabletop-green_on_yellow-v0"
LENGTH = 7
"""Control steps of an episode, but where the clock is what a test is about."""
BUILT_IN = [
    name if name != "gym" else GYM for name, e in registry.SUITES.items() if not e.environment
]
ISOLATED = [name for name, entry in registry.SUITES.items() if entry.environment]
SCENES_APART = ("robocasa-gr1", "robotwin", "domino", "simpler-widowx")
"""Installed without their scenes, which a server says; `test_contract_arms.py` has them too."""
SHOWS_ITSELF = ("counting",)
"""What they show says which slot and episode it is of, so that no two are alike."""


def options_of(suite):
    limit = {"episode_length": LENGTH} if suite == "counting" else {"max_steps": LENGTH}
    return {"image_size": 24, **limit}


@pytest.fixture(
    scope="module",
    params=[*BUILT_IN, *(pytest.param(name, marks=pytest.mark.suites) for name in ISOLATED)],
)
def client(request):
    environment = registry.find_suite(request.param).environment
    if environment and (lacks := environments.problem(environment)):
        pytest.skip(f"{request.param}: {lacks}")
    try:
        found = spawn_server(request.param, 2, options_of(request.param), deadline=300.0)
    except UserError as error:
        if request.param not in SCENES_APART:
            raise
        pytest.skip(str(error))
    yield found
    found.close()


def family(client):
    return client.spec.suite.partition(":")[0]


def starts(client, *seeds):
    tasks = client.spec.tasks
    if family(client) == "counting":
        # Most of its episodes end by chance: take the n-th seed of those that do not.
        lasting = [
            seed
            for seed in range(1000)
            if all(success_step(seed, task, LENGTH) > LENGTH for task in tasks)
        ]
        seeds = [lasting[seed] for seed in seeds]
    return [EpisodeStart(tasks[i % len(tasks)], seed) for i, seed in enumerate(seeds)]


def chunk(client, n, h, seed=0):
    """[n, h, c] small motions around the middle of what the channels take."""
    channels = client.spec.channels
    low, high = (np.array([getattr(c, end) for c in channels]) for end in ("low", "high"))
    random = np.random.default_rng(seed).uniform(-0.2, 0.2, (n, h, len(channels)))
    return ((low + high) / 2 + random * (high - low) / 2).astype(np.float32)


def assert_same(one, other, but=()):
    for name in ("state", "reward", "success", "terminated", "truncated", "step", "executed"):
        if name not in but:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert one.instruction == other.instruction
    for name, images in one.images.items():
        np.testing.assert_array_equal(images, other.images[name], name)


def test_the_spec_is_what_the_class_says_without_its_simulator(client):
    spec = client.spec
    if family(client) != "gym":
        assert registry.describe_suite(spec.suite, **options_of(spec.suite)) == spec
        robot = load_embodiment(spec.embodiment)
        assert [c.name for c in robot.channels] == [c.name for c in spec.channels]
        assert set(robot.cameras) <= {camera.name for camera in spec.cameras}
        assert robot.control_hz == spec.control_hz
    assert len(set(spec.tasks)) == len(spec.tasks) > 0
    assert {camera.height for camera in spec.cameras} == {24}
    assert all(c.low < c.high for c in spec.channels)
    assert spec.max_steps == LENGTH
    stats = client.stats()
    heavy = {name for name in stats if name.startswith("imported_") and stats[name]}
    environment = registry.find_suite(spec.suite).environment
    pins = environments.requirements(environment) if environment else []
    # A simulator may demand torch; nothing of ours does.
    assert heavy <= {"imported_torch" for pin in pins if pin.startswith("torch==")}


def test_an_episode_begins_as_its_start_says_in_any_slot_and_after_anything(client):
    first = client.reset(np.arange(2), starts(client, 3, 4))
    np.testing.assert_array_equal(first.step, [0, 0])
    np.testing.assert_array_equal(first.executed, [0, 0])
    client.step(np.arange(2), chunk(client, 2, 3))
    client.reset(np.arange(2), starts(client, 5, 6))
    client.step(np.arange(2), chunk(client, 2, 2, seed=1))
    again = client.reset(np.array([1, 0]), starts(client, 3, 4))
    assert again.instruction == first.instruction
    assert all(isinstance(words, str) and words for words in first.instruction)
    np.testing.assert_array_equal(again.seed, first.seed)
    if family(client) not in SHOWS_ITSELF:
        assert_same(first, again)
        other = client.reset(np.arange(2), starts(client, 7, 8))
        assert any((other.images[name] != first.images[name]).any() for name in first.images)


def test_a_chunk_is_its_control_steps_one_after_the_other(client):
    actions = chunk(client, 2, 4)
    client.reset(np.arange(2), starts(client, 3, 4))
    drawn = client.stats()["renders"]
    whole = client.step(np.arange(2), actions)
    # Suites that count say so: nothing was drawn but what is shown at the end.
    assert client.stats()["renders"] - drawn in (0, 2)
    client.reset(np.arange(2), starts(client, 3, 4))
    filmed = client.step(np.arange(2), actions, record=True)
    assert [len(film) for film in filmed.frames] == filmed.executed.tolist()
    camera = client.spec.cameras[0].name
    for film, image in zip(filmed.frames, filmed.images[camera], strict=True):
        np.testing.assert_array_equal(film[-1], image)
    client.reset(np.arange(2), starts(client, 3, 4))
    rewards = np.zeros(2, np.float32)
    for step in range(4):
        single = client.step(np.arange(2), actions[:, step : step + 1])
        rewards += single.reward
        assert not single.done.any(), "this test needs episodes that last: take other seeds"
    np.testing.assert_allclose(rewards, whole.reward, rtol=1e-5, atol=1e-6)
    if family(client) not in SHOWS_ITSELF:
        assert_same(whole, filmed)
        assert_same(whole, single, but=("reward", "executed"))


def test_an_episode_ends_at_its_limit_and_then_takes_no_more(client):
    ids = np.arange(2)
    first = client.reset(ids, starts(client, 3, 4))
    assert not first.done.any()
    after = client.step(ids, chunk(client, 2, LENGTH + 3))
    assert (after.executed <= LENGTH).all()
    assert after.done.all()
    assert not (after.terminated & after.truncated).any()
    np.testing.assert_array_equal(after.step[after.truncated], LENGTH)
    assert after.truncated.any()
    assert set(published_metrics(client.spec.suite)) <= set(after.info)
    with pytest.raises(EnvServerError, match=r"reset (it|them)"):
        client.step(ids, chunk(client, 2, 1))
    assert (client.reset(ids, starts(client, 3, 4)).step == 0).all(), "the server goes on"


def test_what_is_no_action_is_refused(client):
    client.reset(np.arange(1), starts(client, 3))
    for wrong, words in (
        (chunk(client, 1, 2) * np.nan, "NaN"),
        (chunk(client, 1, 2)[..., :-1], "shape"),
        (chunk(client, 2, 2), "shape"),
    ):
        with pytest.raises(EnvServerError, match=words):
            client.step(np.arange(1), wrong)
    with pytest.raises(EnvServerError, match="unknown task 'fly'"):
        client.reset(np.arange(1), [EpisodeStart("fly", 0)])
    assert client.step(np.arange(1), chunk(client, 1, 1)).step[0] == 1, "nothing was executed"


def snapshot_of(client):
    """None if the suite says that it makes none."""
    try:
        return client.snapshot()
    except EnvServerError as error:
        if "NotImplementedError" in str(error):
            return None
        raise


def test_a_snapshot_goes_on_bit_for_bit(client):
    ids = np.arange(2)
    client.reset(ids, starts(client, 3, 4))
    client.step(ids, chunk(client, 2, 2))
    blob = snapshot_of(client)
    if blob is None:
        pytest.skip(f"{client.spec.suite} makes no snapshots")
    expected = [client.step(ids, chunk(client, 2, 2, seed)) for seed in (1, 2)]
    client.reset(ids, starts(client, 5, 6))
    client.restore(blob)
    for seed, before in zip((1, 2), expected, strict=True):
        assert_same(client.step(ids, chunk(client, 2, 2, seed)), before)


def test_experts_answer_within_the_bounds_of_the_channels_or_not_at_all(client):
    client.reset(np.arange(2), starts(client, 3, 4))
    if not registry.find_suite(client.spec.suite).experts:
        with pytest.raises(EnvServerError, match="expert"):
            client.expert_actions(np.array([1, 0]))
        return
    ids = np.array([1, 0])
    actions = client.expert_actions(ids)
    assert actions.shape == (2, len(client.spec.channels))
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(client.expert_actions(ids[::-1])[::-1], actions)
    for end, beyond in (("low", np.less), ("high", np.greater)):
        bounds = np.array([getattr(channel, end) for channel in client.spec.channels], np.float32)
        assert not beyond(actions, bounds).any(), end


def test_closing_leaves_no_process(client):
    suite = client.spec.suite
    another = spawn_server(suite, 1, options_of(suite), deadline=300.0)
    os.kill(another.pid, 0)
    another.close()
    with pytest.raises(ProcessLookupError):
        os.kill(another.pid, 0)


def test_what_can_be_installed_says_how_much_it_is():
    for name in environments.names():
        assert environments.download_megabytes(name) > 0, name
        assert environments.about(name), name
        assert name not in ELSEWHERE
    assert {registry.SUITES[name].environment for name in ISOLATED} <= set(environments.names())
