"""The tabletop suite: scenes, goals, episodes, snapshots, bad input, the Gymnasium face of it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from envservers.tabletop import OBJECTS, TASKS, TabletopSuite, gym_env
from envservers.tabletop.expert import Expert, run_expert
from envservers.tabletop.pick_place import ExpertNoise
from envservers.tabletop.scene import arm_configuration, build_model
from envservers.tabletop.suite import UnstableSimulationError
from envservers.tabletop.tasks import find_task
from vlarl.env_protocol import Suite
from vlarl.types import EpisodeStart, TimeStep

NAMES = tuple(task.name for task in TASKS)
STILL = np.array([0.0, 0.0, 0.0, 0.0, 1.0], np.float32)


def start(suite: TabletopSuite, task: str = NAMES[0], seed: int = 3) -> TimeStep:
    ids = np.arange(suite.num_envs)
    return suite.reset(ids, [EpisodeStart(task, seed + int(sim)) for sim in ids])


def play(suite: TabletopSuite, task: str, seed: int) -> list[tuple[TimeStep, NDArray[np.float32]]]:
    """The expert's episode in slot 0: (answer, action) of each control step."""
    expert, ids, starts = Expert(suite), np.arange(1), [EpisodeStart(task, seed)]
    suite.reset(ids, starts)
    expert.reset(ids, starts)
    steps: list[tuple[TimeStep, NDArray[np.float32]]] = []
    while not steps or not steps[-1][0].done[0]:
        action = expert.act(ids)
        steps.append((suite.step(ids, action[:, None]), action))
    return steps


def test_it_is_a_suite() -> None:
    suite = TabletopSuite(1, image_size=8)
    assert isinstance(suite, Suite)
    assert suite.spec.tasks == NAMES
    assert start(suite).state.shape == (1, suite.spec.state_dim)


def test_a_seed_shows_the_same_image_under_every_task() -> None:
    suite = TabletopSuite(2, image_size=16)
    first, other = start(suite, NAMES[0]), start(suite, NAMES[3])
    for camera in ("ego", "cam_right_wrist"):
        assert np.array_equal(first.images[camera], other.images[camera])
        assert not np.array_equal(first.images[camera][0], first.images[camera][1])
    assert first.instruction != other.instruction


def test_rows_follow_the_order_of_the_ids() -> None:
    suite = TabletopSuite(3, image_size=16)
    rows = start(suite)
    starts = [EpisodeStart(NAMES[0], 3 + sim) for sim in (2, 0, 1)]
    mixed = suite.reset(np.array([2, 0, 1]), starts)
    assert np.array_equal(mixed.images["ego"], rows.images["ego"][[2, 0, 1]])
    assert np.array_equal(mixed.seed, [5, 3, 4])


def test_every_object_is_seen_where_it_is_projected() -> None:
    """The pixel at an object's projected center shows one of that object's geoms."""
    suite = TabletopSuite(8)
    start(suite)
    ids = np.arange(8)
    _, geoms = suite.renderer.render_with_segmentation(ids, "ego")
    column, row = np.moveaxis(
        (suite.point_pixels(suite.object_positions(ids), ids, "ego") * 64).astype(int), -1, 0
    )
    bodies = suite.model.geom_bodyid[geoms[ids[:, None], row, column]]
    wanted = [suite.model.body(name).id for name in OBJECTS]
    assert (bodies == wanted).mean() > 0.98


def test_closed_form_arm_puts_the_tool_where_it_is_asked() -> None:
    suite = TabletopSuite(6, image_size=1)
    start(suite)
    assert np.allclose(suite.end_effector(np.arange(6)), suite.commanded(np.arange(6)), atol=1e-9)
    assert arm_configuration(np.zeros((2, 3, 4)) + 0.3).shape == (2, 3, 6)


def test_the_tool_follows_a_step_of_four_centimeters() -> None:
    suite = TabletopSuite(4, image_size=1)
    start(suite)
    ids = np.arange(4)
    goal = suite.end_effector(ids) + np.array([0.04, -0.04, -0.04, 0.2])
    move = np.tile(np.float32([0.04, -0.04, -0.04, 0.2, 1.0]), (4, 1, 1))
    suite.step(ids, move)
    behind = np.abs(suite.end_effector(ids) - goal).max(axis=0)
    assert behind[:3].max() < 6e-3
    assert behind[3] < 0.02
    suite.step(ids, np.tile(STILL, (4, 1, 1)))
    assert np.abs(suite.end_effector(ids) - goal).max() < 1e-3


@pytest.mark.parametrize("task", NAMES)
def test_expert_succeeds_and_only_on_its_task(task: str) -> None:
    suite = TabletopSuite(1, image_size=1)
    for seed in (0, 1, 2):
        steps = play(suite, task, seed)
        last = steps[-1][0]
        assert last.success[0]
        assert last.terminated[0]
        assert not last.truncated[0]
        assert last.task_success[0].tolist() == [name == task for name in NAMES]
        assert sum(float(answer.reward[0]) for answer, _ in steps) == 1.0
        first_success = next(k for k, (answer, _) in enumerate(steps) if answer.success[0])
        assert steps[first_success][1][0, 4] == 1.0, "success came before the gripper opened"


def test_motions_in_the_frame_of_the_base_are_turned_by_a_quarter() -> None:
    world, base = (TabletopSuite(2, image_size=1, frame=frame) for frame in ("world", "base"))
    assert world.spec.embodiment == "tabletop_arm"
    assert base.spec.embodiment == "tabletop_arm_turned"
    ids = np.arange(2)
    # Along the base's own x and then its y.
    said = np.tile(np.float32([[0.04, 0, 0, 0.1, 1.0], [0, 0.04, -0.02, 0, 1.0]]), (2, 1, 1))
    same = np.tile(np.float32([[0, 0.04, 0, 0.1, 1.0], [-0.04, 0, -0.02, 0, 1.0]]), (2, 1, 1))
    for suite, actions in ((base, said), (world, same)):
        start(suite)
        suite.step(ids, actions)
    assert np.allclose(base.commanded(ids), world.commanded(ids), atol=1e-7)
    assert np.allclose(base.end_effector(ids), world.end_effector(ids), atol=1e-6)
    with pytest.raises(ValueError, match="frame = 'hand': choose one of world, base"):
        TabletopSuite(1, frame="hand")


def test_the_expert_works_in_the_frame_of_the_base() -> None:
    suite = TabletopSuite(16, image_size=1, frame="base")
    expert, ids = Expert(suite), np.arange(16)
    starts = [EpisodeStart(NAMES[seed % 4], seed) for seed in range(16)]
    suite.reset(ids, starts)
    expert.reset(ids, starts)
    successes = 0
    while len(ids):
        now = suite.step(ids, expert.act(ids)[:, None])
        successes += int(now.success[now.done].sum())
        ids = ids[~now.done]
    assert successes >= 14


@pytest.mark.parametrize("task", NAMES)
def test_expert_succeeds_in_95_of_100_episodes(task: str) -> None:
    """At least 175 of 192: binomially, a true rate of 95% falls below with probability 0.8%, and a
    true rate of 85% reaches it with 0.8%. (64 episodes cannot tell the two apart.)"""
    success, _ = run_expert(192, task, num_envs=64)
    assert success.sum() >= 175


def test_success_does_not_fire_at_rest_nor_while_holding() -> None:
    suite = TabletopSuite(4, image_size=1)
    assert not start(suite).task_success.any()
    assert not suite.step(np.arange(4), np.tile(STILL, (4, 4, 1))).task_success.any()
    expert, ids, starts = Expert(suite), np.arange(1), [EpisodeStart(NAMES[0], 0)]
    suite.reset(ids, starts)
    expert.reset(ids, starts)
    while suite.object_positions(ids)[0, 0, 2] < 0.05:
        suite.step(ids, expert.act(ids)[:, None])
    while (action := expert.act(ids))[0, 4] < 0:
        suite.step(ids, action[:, None])
    hold = np.float32([[[0, 0, 0, 0, -1]]])
    assert not suite.step(ids, np.repeat(hold, 4, axis=1)).success[0]


def test_a_chunk_stops_where_the_episode_ends() -> None:
    suite = TabletopSuite(1, image_size=4)
    actions = np.stack([action for _, action in play(suite, NAMES[1], 0)], axis=1)
    padded = np.concatenate([actions, np.tile(STILL, (1, 5, 1))], axis=1)
    suite.reset(np.arange(1), [EpisodeStart(NAMES[1], 0)])
    whole = suite.step(np.arange(1), padded, record=True)
    assert whole.executed[0] == whole.step[0] == actions.shape[1]
    assert whole.terminated[0]
    assert whole.reward[0] == 1.0
    assert whole.frames is not None
    assert whole.frames[0].shape == (actions.shape[1], 4, 4, 3)
    assert np.array_equal(whole.frames[0][-1], whole.images["ego"][0])


def test_truncation_and_use_after_the_end() -> None:
    suite = TabletopSuite(2, image_size=1, max_steps=3)
    start(suite)
    ids = np.arange(2)
    suite.step(ids[:1], np.tile(STILL, (1, 1, 1)))
    rest = suite.step(ids, np.tile(STILL, (2, 4, 1)))
    assert rest.executed.tolist() == [2, 3]
    assert rest.truncated.all()
    assert not rest.terminated.any()
    with pytest.raises(ValueError, match="no running episode"):
        suite.step(ids, np.tile(STILL, (2, 1, 1)))


def test_without_termination_the_episode_goes_on_and_pays_once() -> None:
    suite = TabletopSuite(1, image_size=1)
    actions = np.stack([action for _, action in play(suite, NAMES[1], 0)], axis=1)
    endless = TabletopSuite(1, image_size=1, terminate_on_success=False)
    endless.reset(np.arange(1), [EpisodeStart(NAMES[1], 0)])
    padded = np.concatenate([actions, np.tile(STILL, (1, 3, 1))], axis=1)
    now = endless.step(np.arange(1), padded)
    assert now.success[0]
    assert not now.done[0]
    assert now.reward[0] == 1.0
    assert now.executed[0] == padded.shape[1]


def test_snapshot_continues_bit_for_bit() -> None:
    suite = TabletopSuite(3, image_size=16)
    start(suite)
    ids, random = np.arange(3), np.random.default_rng(0)
    actions = random.uniform(-1, 1, (4, 3, 2, 5)).astype(np.float32) * [0.05, 0.05, 0.05, 0.3, 1]
    suite.step(ids, actions[0])
    blob = suite.snapshot()
    runs = []
    for target in (suite, suite, TabletopSuite(3, image_size=16)):
        target.restore(blob)
        runs.append([target.step(ids, chunk) for chunk in actions[1:]])
    for other in runs[1:]:
        for one, two in zip(runs[0], other, strict=True):
            assert np.array_equal(one.state, two.state)
            assert np.array_equal(one.step, two.step)
            assert one.instruction == two.instruction
            assert np.array_equal(one.images["ego"], two.images["ego"])
            assert np.array_equal(one.images["cam_right_wrist"], two.images["cam_right_wrist"])
    with pytest.raises(ValueError, match="num_envs"):
        TabletopSuite(2, image_size=16).restore(blob)


def test_slots_and_threads_do_not_influence_one_another() -> None:
    actions = np.random.default_rng(1).uniform(-0.05, 0.05, (2, 6, 5)).astype(np.float32)
    many, one = TabletopSuite(2, image_size=8, threads=2), TabletopSuite(1, image_size=8)
    start(many)
    both = many.step(np.arange(2), actions)
    one.reset(np.arange(1), [EpisodeStart(NAMES[0], 4)])
    alone = one.step(np.arange(1), actions[1:])
    assert np.array_equal(both.state[1:], alone.state)
    assert np.array_equal(both.images["ego"][1:], alone.images["ego"])


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.full((1, 1, 5), np.nan), "not finite"),
        (np.zeros((1, 1, 4)), "must be"),
        (np.zeros((2, 1, 5)), "must be"),
        (np.zeros((1, 0, 5)), "at least one"),
    ],
)
def test_bad_actions_are_refused(actions: NDArray[np.float64], words: str) -> None:
    suite = TabletopSuite(1, image_size=1)
    start(suite)
    with pytest.raises(ValueError, match=words):
        suite.step(np.arange(1), actions)


def test_bad_starts_are_refused() -> None:
    suite = TabletopSuite(2, image_size=1, tasks=NAMES[:2])
    with pytest.raises(ValueError, match="no running episode"):
        suite.step(np.arange(1), np.zeros((1, 1, 5)))
    with pytest.raises(ValueError, match="carrot_on_plate"):
        suite.reset(np.arange(1), [EpisodeStart(NAMES[2], 0)])
    with pytest.raises(ValueError, match="negative"):
        suite.reset(np.arange(1), [EpisodeStart(NAMES[0], -1)])
    with pytest.raises(ValueError, match="distinct"):
        suite.reset(np.zeros(2, int), [EpisodeStart(NAMES[0], 0)] * 2)
    with pytest.raises(ValueError, match="spoon_on_towel"):
        TabletopSuite(1, tasks=["spoon_on_plate"])


def test_diverging_physics_is_an_error() -> None:
    suite = TabletopSuite(1, image_size=1)
    start(suite)
    suite._qvel[0, 8] = 1e12
    with pytest.raises(UnstableSimulationError, match="environments \\[0\\]"):
        suite.step(np.arange(1), np.tile(STILL, (1, 1, 1)))


def test_expert_noise_is_seeded_and_hurts() -> None:
    noise = ExpertNoise(waypoint_std=0.02, action_std=0.2)
    first = run_expert(8, NAMES[2], noise, seed=5)
    again = run_expert(8, NAMES[2], noise, seed=5, num_envs=3)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[1].mean() > run_expert(8, NAMES[2], seed=5)[1].mean()


def test_a_slow_expert_succeeds_later() -> None:
    slow = ExpertNoise(slowest_pace=0.25)
    success, lengths = run_expert(8, NAMES[0], slow, seed=5, max_steps=144)
    assert success.all()
    assert lengths.mean() > 1.2 * run_expert(8, NAMES[0], seed=5)[1].mean()


def test_instruction_can_be_overridden() -> None:
    suite = TabletopSuite(1, image_size=1)
    told = suite.reset(np.arange(1), [EpisodeStart(NAMES[0], 0, "tidy up")])
    assert told.instruction == ("tidy up",)
    assert told.task == (NAMES[0],)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_accepts_every_task(name: str) -> None:
    env = gymnasium.make(f"vlarl/Tabletop-{name}-v0", image_size=16, render_mode="rgb_array")
    assert isinstance(env.unwrapped, gym_env.TabletopGymEnv)
    check_env(env.unwrapped)
    assert env.reset(seed=1)[1]["instruction"] in find_task(name).phrases
    env.close()


def test_model_is_small() -> None:
    assert build_model().ngeom < 45
