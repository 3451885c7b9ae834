"""MetaWorld with its simulator, in a real server of its own interpreter; skipped without it."""

import dataclasses

import numpy as np
import pytest
from inside import run_inside

from envservers.client import spawn_server
from envservers.environments import problem
from vlarl.errors import UserError
from vlarl.types import EpisodeStart

WRONG = problem("metaworld")
pytestmark = [
    pytest.mark.suites,
    pytest.mark.slow,
    pytest.mark.skipif(bool(WRONG), reason=f"metaworld is {WRONG}"),
]
REACH, PUSH, DOOR = "reach-v3", "push-v3", "door-lock-v3"
SMALL = {"image_size": 64, "cameras": ["ego"], "close_up": True}


@pytest.fixture(scope="module")
def client():
    # Two scenes fit beside the four spare ones, so some of the tests' tasks must be built anew.
    client = spawn_server("metaworld", 2, {**SMALL, "action_repeat": 2})
    yield client
    client.close()


def assert_same(one, other):
    """Two time steps' rows, whichever slots they are of, bit for bit."""
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "env_ids":
            continue
        if isinstance(mine, dict):
            assert mine.keys() == theirs.keys()
            for key in mine:
                np.testing.assert_array_equal(mine[key], theirs[key], err_msg=key)
        elif isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        else:
            assert mine == theirs


def slots(*numbers):
    return np.array(numbers)


def actions(seed, steps, rows=1):
    random = np.random.default_rng(seed)
    low, high = [-0.02] * 3 + [-1], [0.02] * 3 + [1]
    return random.uniform(low, high, (rows, steps, 4)).astype(np.float32)


@pytest.mark.parametrize("task", [REACH, PUSH, DOOR, "basketball-v3"])
def test_an_episode_depends_on_its_start_alone(client, task):
    start, other = EpisodeStart(task, 5), EpisodeStart(task, 6)
    first = client.reset(slots(0), [start])
    played = client.step(slots(0), actions(1, 6))
    # Another slot, after another episode of the task and one of another task, with one beside it.
    client.reset(slots(1, 0), [other, EpisodeStart("hammer-v3", 1)])
    client.step(slots(1, 0), actions(2, 3, 2))
    again = client.reset(slots(1, 0), [start, other])
    assert_same(first, _row(again, 0))
    assert not np.array_equal(first.images["ego"][0], again.images["ego"][1])
    client.step(slots(0), actions(3, 2))
    assert_same(played, client.step(slots(1), actions(1, 6)))


def _row(now, place):
    """One row of a time step."""
    found = {}
    for field in dataclasses.fields(now):
        value = getattr(now, field.name)
        if isinstance(value, dict):
            found[field.name] = {key: array[place : place + 1] for key, array in value.items()}
        else:
            found[field.name] = None if value is None else value[place : place + 1]
    return dataclasses.replace(now, **found)


@pytest.mark.parametrize("task", [PUSH, DOOR])
def test_a_snapshot_continues_bit_for_bit(client, task):
    client.reset(slots(0, 1), [EpisodeStart(task, 3), EpisodeStart(task, 4)])
    client.step(slots(0, 1), actions(1, 5, 2))
    blob = client.snapshot()
    expected = client.step(slots(0, 1), actions(2, 5, 2))
    advice = client.expert_actions(slots(0, 1))
    client.reset(slots(0, 1), [EpisodeStart(REACH, 0)] * 2)
    client.restore(blob)
    assert_same(expected, client.step(slots(0, 1), actions(2, 5, 2)))
    np.testing.assert_array_equal(client.expert_actions(slots(0, 1)), advice)
    other = spawn_server("metaworld", 2, {**SMALL, "action_repeat": 2})
    try:
        other.restore(blob)
        assert_same(expected, other.step(slots(0, 1), actions(2, 5, 2)))
    finally:
        other.close()


def test_experts_succeed_and_stay_within_the_channels(client):
    tasks = [REACH, "drawer-close-v3"]
    now = client.reset(slots(0, 1), [EpisodeStart(task, 7) for task in tasks])
    low = np.array([channel.low for channel in client.spec.channels], np.float32)
    high = np.array([channel.high for channel in client.spec.channels], np.float32)
    solved = set()
    for _ in range(client.spec.max_steps):
        running = slots(*(slot for slot in (0, 1) if slot not in solved))
        advice = client.expert_actions(running)
        assert ((advice >= low) & (advice <= high)).all()
        now = client.step(running, advice[:, None])
        assert not now.truncated.any()
        np.testing.assert_array_equal(now.success, now.terminated)
        solved |= set(now.env_ids[now.success].tolist())
        if len(solved) == 2:
            break
    assert solved == {0, 1}


def test_state_is_the_hand_in_meters_and_hides_the_goal(client):
    first = client.reset(slots(0, 1), [EpisodeStart(REACH, 1), EpisodeStart(REACH, 2)])
    # The hand starts in the same place, wherever the goal is.
    np.testing.assert_array_equal(first.state[0], first.state[1])
    up = np.tile(np.array([0, 0, 0.02, 1], np.float32), (1, 4, 1))
    after = client.step(slots(0), up)
    assert after.state[0, 2] > first.state[0, 2] + 0.02
    assert 0 < after.state[0, 3] < first.state[0, 3] <= 0.1


def test_the_tuned_picture_shows_what_the_default_one_does():
    seen = {}
    for renderer in ("tuned", "default"):
        options = {"image_size": 64, "renderer": renderer, "tasks": ["drawer-open-v3"]}
        other = spawn_server("metaworld", 1, options)
        try:
            seen[renderer] = other.reset(slots(0), [EpisodeStart("drawer-open-v3", 1)]).images
        finally:
            other.close()
    for camera, tuned in seen["tuned"].items():
        default = seen["default"][camera]
        assert not np.array_equal(tuned, default)
        assert np.corrcoef(tuned.ravel(), default.ravel())[0, 1] > 0.9
        # Upside down or mirrored it would not agree.
        assert np.corrcoef(tuned.ravel(), default[:, ::-1].ravel())[0, 1] < 0.9


def test_what_is_out_of_view_changes_no_pixel():
    answer = run_inside(
        "metaworld",
        "import numpy as np\nfrom envservers.opengl import choose\nchoose()\n",
        """
    from contextlib import nullcontext
    from envservers import frustum
    from envservers.metaworld import renderer
    from envservers.metaworld.suite import MetaWorldSuite
    from vlarl.types import EpisodeStart
    left_out, outside = [], frustum.outside

    def counted(*scene):
        left_out.append(int(outside(*scene).sum()))
        return outside(*scene)

    frustum.outside = counted
    suite = MetaWorldSuite(1, tasks=["drawer-open-v3"])
    start = [EpisodeStart("drawer-open-v3", 1)]
    seen = suite.reset(np.zeros(1, int), start).images
    renderer.culled = lambda *anything: nullcontext()
    whole = suite.reset(np.zeros(1, int), start).images
    same = all(np.array_equal(seen[camera], whole[camera]) for camera in whole)
    answer = dict(same=same, left_out=left_out)
    """,
    )
    assert answer["same"]
    assert max(answer["left_out"]) > 0


def test_without_opengl_the_start_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(UserError, match=r"MUJOCO_GL=nonsense.*use one of egl, osmesa"):
        spawn_server("metaworld", 1, SMALL)
