"""The navigation suite: true sentences, motion and what blocks it, goals, metrics, snapshots."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from envservers.navigation import TASKS, NavigationSuite, gym_env
from envservers.navigation.expert import Expert, ExpertNoise, run_expert
from envservers.navigation.geometry import Obstacles, gaps, is_clear, slide
from envservers.navigation.planner import (
    GRID,
    REACH,
    distance_field,
    distance_from,
    way_from,
)
from envservers.navigation.sampling import PERSON, sample_episode, sample_rooms
from envservers.navigation.scene import AGENT_RADIUS, ARENA, PARKED, SHAPES
from envservers.navigation.suite import MAX_MOVE, MAX_TURN
from envservers.navigation.tasks import SUCCESS_DISTANCE, TURNS
from vlarl.config.embodiments import load_embodiment
from vlarl.env_protocol import Suite
from vlarl.types import EpisodeStart, TimeStep
from vlarl.waypoints import poses_from_waypoints, wrapped

NAMES = tuple(task.name for task in TASKS)
STOP = np.zeros((1, 2, 3), np.float32)
SLOT = np.arange(1)


def start(suite: NavigationSuite, task: str = NAMES[0], seed: int = 3) -> TimeStep:
    ids = np.arange(suite.num_envs)
    return suite.reset(ids, [EpisodeStart(task, seed + int(sim)) for sim in ids])


def emptied(suite: NavigationSuite, pose: tuple[float, float, float]) -> None:
    """Clear the rooms of slot 0, its goal aside, and put its agent somewhere."""
    keep = suite.slots.goal[0]
    for index in range(PERSON + 1):
        if index != keep:
            suite.slots.center[0, index] = PARKED
    suite.slots.pose[0] = pose


def play(
    suite: NavigationSuite, task: str, seed: int
) -> list[tuple[TimeStep, NDArray[np.float32]]]:
    """The expert's episode in slot 0: (answer, action) of each control step."""
    expert, starts = Expert(suite), [EpisodeStart(task, seed)]
    suite.reset(SLOT, starts)
    expert.reset(SLOT, starts)
    steps: list[tuple[TimeStep, NDArray[np.float32]]] = []
    while not steps or not steps[-1][0].done[0]:
        action = expert.act(SLOT)
        steps.append((suite.step(SLOT, action[:, None]), action))
    return steps


def test_it_is_a_suite_for_the_navigation_agent() -> None:
    suite = NavigationSuite(1, image_size=8)
    robot = load_embodiment("vln_agent")
    assert isinstance(suite, Suite)
    assert suite.spec.tasks == NAMES
    assert suite.spec.channels == robot.channels
    assert suite.spec.control_hz == robot.control_hz
    assert tuple(camera.name for camera in suite.spec.cameras) == robot.cameras
    assert start(suite).state.tolist() == [[0.0, 0.0, 0.0]]


def test_rows_follow_the_order_of_the_ids() -> None:
    suite = NavigationSuite(3, image_size=16)
    rows = start(suite)
    starts = [EpisodeStart(NAMES[0], 3 + sim) for sim in (2, 0, 1)]
    mixed = suite.reset(np.array([2, 0, 1]), starts)
    assert np.array_equal(mixed.images["ego"], rows.images["ego"][[2, 0, 1]])
    assert np.array_equal(mixed.seed, [5, 3, 4])
    assert mixed.instruction == tuple(rows.instruction[i] for i in (2, 0, 1))


def test_rooms_belong_to_the_seed_and_starts_to_the_task() -> None:
    rooms, again = sample_rooms(7), sample_rooms(7)
    assert np.array_equal(rooms.obstacles.center, again.obstacles.center)
    assert len(set(rooms.names)) == len(SHAPES)
    episodes = [sample_episode(rooms, task, 7) for task in NAMES]
    assert len({tuple(episode.start) for episode in episodes}) == len(NAMES)
    assert not np.array_equal(rooms.obstacles.center, sample_rooms(8).obstacles.center)


@pytest.mark.parametrize("task", NAMES)
def test_what_is_said_is_what_is_seen(task: str) -> None:
    """The goal's own pixels are in view, or not, as the task has it; turns point the right way."""
    count = 16
    suite = NavigationSuite(count, image_size=64)
    told = start(suite, task, seed=100)
    ids = np.arange(count)
    geoms = suite.renderer.draw(ids, suite.camera_pose(ids), "ego")[1]
    for sim in ids:
        goal = int(suite.slots.goal[sim])
        name = "person" if goal == PERSON else f"landmark{goal - (PERSON - len(SHAPES))}"
        seen = bool((geoms[sim] == suite.model.geom(name).id).any())
        away = suite.slots.goal_center(ids)[sim] - suite.slots.pose[sim, :2]
        bearing = float(wrapped(np.arctan2(away[1], away[0]) - suite.slots.pose[sim, 2]))
        if task == "turn_and_go":
            turn = told.instruction[sim].split(",")[0]
            assert abs(float(wrapped(np.array(bearing - TURNS[turn])))) < 0.4
            assert not seen
        else:
            assert seen == (task != "search_object")
        if goal != PERSON:
            words = sample_rooms(100 + int(sim)).names[goal - (PERSON - len(SHAPES))]
            assert told.instruction[sim].endswith(words)


@pytest.mark.parametrize("task", NAMES)
def test_expert_succeeds_in_95_of_100_episodes(task: str) -> None:
    """At least 44 of 48; a true rate of 80% reaches that with a probability of 2%."""
    success, lengths, weighted = run_expert(48, task, num_envs=48)
    assert success.sum() >= 44
    assert lengths[success].max() < 40
    # Whoever follows goes the other's way, which need not be the shortest.
    assert weighted[success].min() > (0.2 if task == "follow_target" else 0.8)
    assert not weighted[~success].any()


def test_waypoints_are_carried_out_as_they_are_in_the_open() -> None:
    suite = NavigationSuite(1, image_size=1)
    start(suite)
    emptied(suite, (-2.0, -2.0, 0.3))
    suite.slots.center[0] = PARKED
    chunk = np.float32([[0.4, 0.1, 0.2], [0.3, -0.2, -0.5], [0.0, 0.0, 0.7], [0.2, 0.2, 0.1]])
    now = suite.step(SLOT, chunk[None])
    path = poses_from_waypoints(np.array([-2.0, -2.0, 0.3]), chunk)
    assert np.allclose(suite.slots.pose[0], path[-1], atol=1e-6)
    assert now.info["path_length"][0] == pytest.approx(
        np.linalg.norm(np.diff(path[:, :2], axis=0), axis=1).sum(), abs=1e-5
    )


@pytest.mark.parametrize("executed", [1, 2, 3, 8])
def test_overlapping_windows_execute_the_same_waypoints(executed: int) -> None:
    """A policy that predicts eight of a plan and executes the first few follows the whole plan."""
    steps = play(NavigationSuite(1, image_size=1), NAMES[2], 2)
    plan = np.stack([action[0] for _, action in steps])
    plan = np.concatenate([plan, np.zeros((8, 3), np.float32)])
    whole, sliding = NavigationSuite(1, image_size=4), NavigationSuite(1, image_size=4)
    for suite in (whole, sliding):
        suite.reset(SLOT, [EpisodeStart(NAMES[2], 2)])
    expected = whole.step(SLOT, plan[None], record=True)
    frames, now = [], None
    while now is None or not now.done[0]:
        place = 0 if now is None else int(now.step[0])
        window = plan[place : place + 8]
        now = sliding.step(SLOT, window[None, :executed], record=True)
        frames.append(now.frames[0])
    assert now.success[0]
    assert np.array_equal(sliding.slots.pose, whole.slots.pose)
    assert np.array_equal(np.concatenate(frames), expected.frames[0])
    assert now.info == expected.info


def test_the_agent_is_no_faster_than_it_is() -> None:
    suite = NavigationSuite(1, image_size=1)
    start(suite)
    emptied(suite, (-2.0, 0.0, 0.0))
    suite.slots.center[0] = PARKED
    suite.step(SLOT, np.float32([[[2.0, 0.0, 3.0]]]))
    assert np.allclose(suite.slots.pose[0], [-2.0 + MAX_MOVE, 0.0, MAX_TURN])


def test_nothing_is_walked_through() -> None:
    suite = NavigationSuite(8, image_size=1)
    ids, random = np.arange(8), np.random.default_rng(0)
    start(suite, NAMES[3])
    collisions = 0
    for _ in range(38):
        chunk = random.uniform([-0.1, -0.2, -0.5], [1.0, 0.2, 0.5], (8, 1, 3)).astype(np.float32)
        now = suite.step(ids, chunk)
        assert np.abs(suite.slots.pose[:, :2]).max() <= ARENA - AGENT_RADIUS + 1e-9
        around = suite.slots.obstacles(ids)
        gap = gaps(suite.slots.pose[:, :2], around)
        assert gap[:, :PERSON].min() >= AGENT_RADIUS - 1e-9
        assert gap[:, PERSON].min() > AGENT_RADIUS - 0.01
        collisions = now.info["collisions"].sum()
    assert collisions > 8


def test_a_wall_is_slid_along() -> None:
    wall = Obstacles(np.array([[[1.0, 0.0]]]), np.array([[[0.05, 2.0]]]), np.array([[0.0]]))
    there, blocked = slide(np.array([[0.7, 0.0]]), np.array([[1.0, 0.3]]), wall, 0.2, ARENA)
    assert blocked[0]
    assert 0.7 <= there[0, 0] <= 0.75
    assert there[0, 1] == pytest.approx(0.3)


def test_success_is_a_stop_near_the_goal_with_no_wall_between() -> None:
    suite = NavigationSuite(1, image_size=1)
    start(suite)
    goal = suite.slots.goal_center(SLOT)[0]
    emptied(suite, (0.0, 0.0, 0.0))
    near = goal * (1 - 0.7 * SUCCESS_DISTANCE / np.linalg.norm(goal))
    suite.slots.pose[0, :2] = near
    moving = np.float32([[[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]]])
    assert not suite.step(SLOT, moving).success[0]
    middle = (near + goal) / 2
    suite.slots.center[0, 0] = middle
    suite.slots.half[0, 0] = 0.01
    assert not suite.step(SLOT, STOP).success[0]
    suite.slots.center[0, 0] = PARKED
    now = suite.step(SLOT, STOP)
    assert now.success[0]
    assert now.terminated[0]
    assert now.reward[0] == 1.0
    assert now.executed[0] == 1
    assert now.task_success.tolist() == [[True, False, False, False]]


def test_stopping_elsewhere_is_no_success_and_no_end() -> None:
    suite = NavigationSuite(2, image_size=1, max_steps=5)
    now = start(suite, NAMES[2])
    assert not now.success.any()
    now = suite.step(np.arange(2), np.repeat(STOP, 2, axis=0))
    assert not now.done.any()
    now = suite.step(np.arange(2), np.zeros((2, 6, 3), np.float32))
    assert now.executed.tolist() == [3, 3]
    assert now.truncated.all()
    assert not now.terminated.any()
    assert not now.info["spl"].any()
    assert np.allclose(now.info["distance_to_goal"], now.info["shortest_path"])
    with pytest.raises(ValueError, match="no running episode"):
        suite.step(np.arange(1), STOP)


def test_the_person_walks_waits_and_must_have_arrived() -> None:
    suite = NavigationSuite(1, image_size=1)
    start(suite, NAMES[3], 1)
    slots = suite.slots
    suite.step(SLOT, STOP)
    assert slots.walked[0] == 2
    assert np.array_equal(slots.center[0, PERSON], slots.walk[0, 2])
    slots.pose[0, :2] = slots.walk[0, 5]
    for _ in range(3):
        now = suite.step(SLOT, STOP)
    assert slots.walked[0] < 5, "it walked through the agent"
    assert now.info["oracle_success"][0] == 1.0
    assert not now.success[0], "it is not where it wants to be"


def test_following_is_measured_by_how_long_the_goal_was_in_view() -> None:
    suite = NavigationSuite(1, image_size=1)
    seen = play(suite, NAMES[3], 5)[-1][0].info["goal_in_view"][0]
    assert seen > 0.8
    start(suite, NAMES[3], 5)
    suite.slots.pose[0, 2] += np.pi
    assert suite.step(SLOT, STOP).info["goal_in_view"][0] == 0.0


def test_shortest_ways_go_around_walls() -> None:
    empty = Obstacles(np.full((1, 2), PARKED), np.zeros((1, 2)), np.zeros(1))
    wall = Obstacles(np.array([[0.0, -1.0]]), np.array([[0.05, 2.0]]), np.zeros(1))
    here, goal = np.array([-1.5, -2.0]), np.array([1.5, -2.0])
    direct = distance_field(goal, empty, empty)
    assert distance_from(here, direct) == pytest.approx(3.0, abs=0.15)
    around = distance_field(goal, wall, wall)
    corner = 2 * np.hypot(1.5, 1.0 + AGENT_RADIUS + 2.0)
    assert corner < distance_from(here, around) < 1.2 * corner
    way = way_from(here, around)
    assert gaps(way, wall).min() >= AGENT_RADIUS
    assert np.linalg.norm(np.diff(way, axis=0), axis=1).max() < 0.3
    assert np.linalg.norm(way[-1] - goal) <= REACH
    assert np.isinf(around[0][np.abs(GRID[0, :, 1]) > ARENA - AGENT_RADIUS]).all()


def test_lines_of_sight() -> None:
    box = Obstacles(np.array([[0.0, 0.0]]), np.array([[0.5, 0.1]]), np.array([0.1]))
    ends = np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -0.1]])
    assert is_clear(np.array([-1.0, 0.0]), ends, box, 0.0).tolist() == [False, True, True]
    assert not is_clear(np.array([-1.0, 0.3]), np.array([1.0, 0.3]), box, 0.2)
    assert is_clear(np.array([0.0, 0.0]), np.array([0.0, 0.0]), box.only(slice(0, 0)), 0.0)


def test_snapshot_continues_bit_for_bit() -> None:
    suite = NavigationSuite(3, image_size=16)
    start(suite, NAMES[3])
    ids, random = np.arange(3), np.random.default_rng(0)
    actions = random.uniform(-0.5, 0.5, (4, 3, 2, 3)).astype(np.float32)
    suite.step(ids, actions[0])
    blob = suite.snapshot()
    runs = []
    for target in (suite, suite, NavigationSuite(3, image_size=16)):
        target.restore(blob)
        runs.append([target.step(ids, chunk) for chunk in actions[1:]])
    for other in runs[1:]:
        for one, two in zip(runs[0], other, strict=True):
            assert np.array_equal(one.state, two.state)
            assert np.array_equal(one.step, two.step)
            assert one.instruction == two.instruction
            assert np.array_equal(one.images["ego"], two.images["ego"])
            assert all(np.array_equal(one.info[name], two.info[name]) for name in one.info)
    with pytest.raises(ValueError, match="num_envs"):
        NavigationSuite(2, image_size=16).restore(blob)


def test_slots_and_threads_do_not_influence_one_another() -> None:
    actions = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 6, 3)).astype(np.float32)
    many, one = NavigationSuite(2, image_size=8, threads=2), NavigationSuite(1, image_size=8)
    start(many)
    both = many.step(np.arange(2), actions)
    one.reset(SLOT, [EpisodeStart(NAMES[0], 4)])
    alone = one.step(SLOT, actions[1:])
    assert np.array_equal(both.state[1:], alone.state)
    assert np.array_equal(both.images["ego"][1:], alone.images["ego"])


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.full((1, 1, 3), np.nan), "not finite"),
        (np.zeros((1, 1, 4)), "must be"),
        (np.zeros((2, 1, 3)), "must be"),
        (np.zeros((1, 0, 3)), "at least one control step"),
    ],
)
def test_bad_actions_are_refused(actions: NDArray[np.float64], words: str) -> None:
    suite = NavigationSuite(1, image_size=1)
    start(suite)
    with pytest.raises(ValueError, match=words):
        suite.step(SLOT, actions)


def test_bad_starts_are_refused() -> None:
    suite = NavigationSuite(2, image_size=1, tasks=NAMES[:2])
    with pytest.raises(ValueError, match="no running episode"):
        suite.step(SLOT, STOP)
    with pytest.raises(ValueError, match="turn_and_go"):
        suite.reset(SLOT, [EpisodeStart(NAMES[2], 0)])
    with pytest.raises(ValueError, match="negative"):
        suite.reset(SLOT, [EpisodeStart(NAMES[0], -1)])
    with pytest.raises(ValueError, match="distinct"):
        suite.reset(np.zeros(2, int), [EpisodeStart(NAMES[0], 0)] * 2)
    with pytest.raises(ValueError, match="search_object"):
        NavigationSuite(1, tasks=["swim"])
    with pytest.raises(ValueError, match="at least 1"):
        NavigationSuite(1, image_size=0)


def test_expert_noise_is_seeded_and_shows() -> None:
    noise = ExpertNoise(action_std=0.2, slowest_pace=0.5, clumsy_steps=3, waypoint_std=0.05)
    first = run_expert(8, NAMES[0], noise, seed=5)
    again = run_expert(8, NAMES[0], noise, seed=5, num_envs=3)
    assert np.array_equal(first[1], again[1])
    assert first[1].mean() > run_expert(8, NAMES[0], seed=5)[1].mean()


def test_instruction_can_be_overridden() -> None:
    suite = NavigationSuite(1, image_size=1)
    told = suite.reset(SLOT, [EpisodeStart(NAMES[0], 0, "go home")])
    assert told.instruction == ("go home",)


@pytest.mark.filterwarnings("error", "ignore:.*symmetric and normalized")
@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_accepts_every_task(name: str) -> None:
    env = gymnasium.make(f"vlarl/Navigation-{name}-v0", image_size=16, render_mode="rgb_array")
    assert isinstance(env.unwrapped, gym_env.NavigationGymEnv)
    check_env(env.unwrapped)
    _, told = env.reset(seed=1)
    assert told["instruction"]
    assert told["distance_to_goal"] > 0.5
    env.close()
