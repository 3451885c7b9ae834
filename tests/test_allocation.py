"""Environments by difficulty: the numbers, who they belong to, and a rollout that follows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_policy import FakePolicy

from actors.episodes import EpisodeSource
from actors.rollout import RolloutCollector
from actors.rollout_stats import merge_metrics
from actors.runtime import InprocessRuntime
from actors.task_allocation import TaskAllocation
from envservers.counting import TASKS, CountingSuite, check_transition
from envservers.inprocess import InprocessClient
from vlarl.allocation import allocate, difficulty, kept_or_changed, reassigned, running_rates
from vlarl.config.load import load_config
from vlarl.config.paths import configs_folder
from vlarl.config.process_schema import AllocationConfig
from vlarl.errors import ConfigError, UserError

ENVS, SERVERS, T = 4, 2, 6


def random_cases(number=200):
    """Difficulties, some of them zero or equal, with environments and bounds that fit."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        tasks = int(rng.integers(1, 12))
        hard = rng.random(tasks) ** rng.integers(1, 8)
        hard[rng.random(tasks) < 0.2] = rng.choice([0.0, 0.5])
        environments = tasks + int(rng.integers(0, 200))
        yield hard, environments, float(rng.random()), float(1 + 5 * rng.random())


def test_numbers_are_in_proportion_to_difficulty():
    hard = np.array([0.1, 0.2, 0.3, 0.4])
    assert allocate(hard, 100, 0.0, 4.0).tolist() == [10, 20, 30, 40]
    # At least half and at most one and a half times 25; what is cut goes to the others.
    assert allocate(hard, 100, 0.5, 1.5).tolist() == [12, 20, 30, 38]
    # Two places are left after 3, 3, 3 whole ones of 3.67 each: the first get them.
    assert allocate(np.ones(3), 11, 0.0, 9.0).tolist() == [4, 4, 3]


def test_numbers_sum_up_and_keep_within_their_bounds():
    for hard, environments, floor, ceiling in random_cases():
        counts = allocate(hard, environments, floor, ceiling)
        equal = environments / len(hard)
        assert counts.sum() == environments
        assert counts.min() >= max(1, int(floor * equal))
        assert counts.max() <= np.ceil(ceiling * equal)


def test_a_harder_task_never_gets_less():
    rng = np.random.default_rng(1)
    for hard, environments, floor, ceiling in random_cases():
        counts = allocate(hard, environments, floor, ceiling)
        order = np.lexsort((-counts, hard))
        strictly = np.diff(hard[order]) > 0
        assert (np.diff(counts[order])[strictly] >= 0).all()
        place = int(rng.integers(len(hard)))
        harder = hard.copy()
        harder[place] += rng.random()
        assert allocate(harder, environments, floor, ceiling)[place] >= counts[place]


def test_numbers_are_near_their_exact_shares():
    for hard, environments, _, _ in random_cases():
        hard = np.maximum(hard, 0.05)
        shares = environments * hard / hard.sum()
        if shares.min() >= 1:
            counts = allocate(hard, environments, 0.0, len(hard))
            assert (np.abs(counts - shares) < 1).all()


@pytest.mark.parametrize(
    ("tasks", "environments", "floor", "ceiling", "words"),
    [
        (3, 2, 0.0, 2.0, "2 environments for 3 tasks"),
        (0, 2, 0.0, 2.0, "0 tasks"),
        (2, 4, 1.5, 2.0, "floor=1.5"),
        (2, 4, 0.5, 0.9, "ceiling=0.9"),
    ],
)
def test_impossible_numbers_are_refused(tasks, environments, floor, ceiling, words):
    with pytest.raises(ValueError, match=words):
        allocate(np.ones(tasks), environments, floor, ceiling)


def test_difficulty_of_failure_and_of_variance():
    rates = np.array([0.0, 0.25, 0.5, 1.0])
    assert difficulty(rates, "failure").tolist() == [1.0, 0.75, 0.5, 0.0]
    # The variance of an outcome that is 1 with that probability.
    outcomes = (np.arange(4)[None] < 4 * rates[:, None]).astype(float)
    assert np.allclose(difficulty(rates, "variance"), outcomes.var(axis=1))
    with pytest.raises(ValueError, match="failure or variance"):
        difficulty(rates, "uniform")


def test_rates_begin_in_the_middle_and_approach_the_truth():
    assert running_rates(np.zeros(2), np.zeros(2)).tolist() == [0.5, 0.5]
    rates = running_rates(np.array([0.0, 3e6]), np.array([1e6, 4e6]))
    assert np.allclose(rates, [0.0, 0.75], atol=1e-5)
    assert rates[0] > 0


def test_an_allocation_is_kept_unless_enough_of_it_moves():
    current = np.array([10, 10])
    for moved, margin, kept in ((1, 0.05, True), (2, 0.05, False), (1, 0.0, False), (0, 0.0, True)):
        proposed = current + np.array([moved, -moved])
        found = kept_or_changed(current, proposed, margin)
        assert found.tolist() == (current if kept else proposed).tolist()


def test_as_few_streams_change_their_task_as_can():
    rng = np.random.default_rng(2)
    for hard, environments, floor, ceiling in random_cases():
        counts = allocate(hard, environments, floor, ceiling)
        before = rng.integers(len(hard), size=environments)
        after = reassigned(before, counts)
        assert np.bincount(after, minlength=len(hard)).tolist() == counts.tolist()
        missing = counts - np.bincount(before, minlength=len(hard))
        assert (before != after).sum() == missing.clip(0).sum()


def two_tasks(streams=20, **settings):
    return TaskAllocation(AllocationConfig("failure", **settings), TASKS, range(streams))


def test_the_task_that_fails_gets_environments_up_to_the_floor_of_the_other():
    allocation = two_tasks(floor=0.2)
    assert allocation.environments() == dict.fromkeys(TASKS, 10)
    for _ in range(20):
        allocation.update(dict.fromkeys(TASKS, 50), {TASKS[0]: 50, TASKS[1]: 0})
    assert allocation.environments() == {TASKS[0]: 2, TASKS[1]: 18}
    drawn = [allocation.task_of(stream) for stream in range(20)]
    assert drawn.count(TASKS[0]) == 2


def test_small_changes_of_the_rates_change_nothing():
    allocation = two_tasks(streams=40, margin=0.1)
    allocation.update(dict.fromkeys(TASKS, 500), dict.fromkeys(TASKS, 250))
    before = [allocation.task_of(stream) for stream in range(40)]
    rng = np.random.default_rng(3)
    for _ in range(30):
        ended = dict.fromkeys(TASKS, 50)
        allocation.update(ended, {task: int(rng.integers(22, 29)) for task in TASKS})
        assert [allocation.task_of(stream) for stream in range(40)] == before
    # And large ones do: the margin delays, it does not freeze.
    allocation.update(dict.fromkeys(TASKS, 5000), {TASKS[0]: 4500, TASKS[1]: 500})
    assert [allocation.task_of(stream) for stream in range(40)] != before


def test_old_episodes_count_for_less_and_a_task_without_any_keeps_its_rate():
    allocation = two_tasks(smoothing=0.5)
    allocation.update(dict.fromkeys(TASKS, 8), {TASKS[0]: 8, TASKS[1]: 4})
    untouched = allocation.rates()[TASKS[1]]
    allocation.update({TASKS[0]: 4}, {TASKS[0]: 0})
    # 8 successes in 8 episodes count half; with 0 in 4 and Laplace's rule: (4 + 1) / (8 + 2).
    assert allocation.rates() == {TASKS[0]: 0.5, TASKS[1]: untouched}


def test_what_cannot_be_allocated_is_refused():
    with pytest.raises(ConfigError, match="no effect with one task"):
        TaskAllocation(AllocationConfig("failure"), TASKS[:1], range(4))
    with pytest.raises(ConfigError, match=r"1 environments for 2 tasks.*env\.servers"):
        TaskAllocation(AllocationConfig("variance"), TASKS, range(1))


class LopsidedSuite(CountingSuite):
    """Counting environments in which the second task never succeeds."""

    def step(self, env_ids, actions, record=False):
        """As the counting suite, but for the outcome of the second task."""
        answer = super().step(env_ids, actions, record)
        hopeless = np.array([task == TASKS[1] for task in answer.task])
        answer.truncated[:] = answer.truncated | (answer.terminated & hopeless)
        answer.terminated[hopeless] = answer.success[hopeless] = False
        return answer


def make_collector(config, suite=LopsidedSuite):
    clients = [InprocessClient(suite(ENVS, 10)) for _ in range(SERVERS)]
    allocation = None if config is None else TaskAllocation(config, TASKS, range(ENVS * SERVERS))
    source = EpisodeSource(TASKS, (0,), ENVS * SERVERS, allocation=allocation)

    def reward(seen):
        check_transition(seen.before, seen.actions, seen.after)
        return seen.after.executed.astype(np.float32)

    return RolloutCollector(clients, FakePolicy(), reward, source, T)


def test_the_rollout_follows_the_allocation():
    collector = make_collector(AllocationConfig("failure", margin=0.0))
    tasks, metrics = [], []
    for _ in range(12):
        batch, stats = collector.collect()
        tasks.append(batch["task"].reshape(-1, T).numpy())
        metrics.append(stats.metrics())
    first, last = metrics[0], metrics[-1]
    assert [first[f"allocation/{task}"] for task in TASKS] == [4, 4]
    assert last[f"allocation/{TASKS[1]}"] > 4
    assert last[f"running_success/{TASKS[1]}"] < 0.1 < last[f"running_success/{TASKS[0]}"]
    assert last["episodes"]
    # Four decisions end every episode: by its last decision a stream is on the window's own task.
    for found, row in zip(tasks[1:], metrics[1:], strict=True):
        assert (found[:, -1] == 1).sum() == row[f"allocation/{TASKS[1]}"]


def test_variance_starves_a_task_that_never_succeeds_where_failure_feeds_it():
    share = {}
    for kind in ("failure", "variance"):
        collector = make_collector(AllocationConfig(kind, margin=0.0))
        share[kind] = [collector.collect()[1].allocation for _ in range(12)][-1][TASKS[1]]
    assert share["variance"] < ENVS < share["failure"]


def test_without_an_allocation_nothing_is_new():
    state = make_collector(None).state_dict()
    assert set(state) == {"counters", "lanes"}
    stats = make_collector(None).collect()[1]
    assert not [name for name in stats.metrics() if name.startswith(("allocation", "running"))]


def test_a_resumed_rollout_goes_on_with_the_same_allocation():
    config = AllocationConfig("failure", margin=0.0)
    first = make_collector(config)
    for _ in range(5):
        first.collect()
    state = first.state_dict()
    expected = [first.collect() for _ in range(4)]
    second = make_collector(config)
    second.load_state_dict(state)
    for batch, stats in expected:
        again, found = second.collect()
        assert (batch == again).all()
        assert found.allocation == stats.allocation
        assert found.running_success == stats.running_success
    # An evaluation in between leaves it as it is.
    kept = first.state_dict()["allocation"]
    first.lend(lambda clients: None)
    assert first.state_dict()["allocation"] == kept


def test_an_allocation_to_other_tasks_is_not_resumed():
    state = two_tasks().state_dict()
    other = TaskAllocation(AllocationConfig("failure"), ("a", "b"), range(20))
    with pytest.raises(UserError, match="count_red, count_blue, this run to a, b"):
        other.load_state_dict(state)


def test_environments_of_several_workers_add_up_and_rates_do_not():
    rows = [{"allocation/a": 3.0, "running_success/a": 0.5, "decisions": 8.0}] * 2
    assert merge_metrics(rows) == {"allocation/a": 6.0, "running_success/a": 0.5, "decisions": 16.0}


def test_a_run_allocates_logs_and_resumes(tmp_path):
    tasks = ("spoon_on_towel", "carrot_on_plate", "green_on_yellow")
    config = load_config(
        configs_folder() / "rl/debug.yaml",
        [
            f"output={tmp_path}",
            f"env.tasks=[{', '.join(tasks)}]",
            "env.max_steps=8",
            "env.allocation.kind=failure",
            "env.allocation.margin=0",
            "ppo.decisions_per_stream=2",
        ],
    )
    runtime = InprocessRuntime(config)
    runtime.iterate()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    runtime.save(folder)
    straight = [runtime.iterate() for _ in range(2)]
    runtime.close()
    resumed = InprocessRuntime(config, folder)
    again = [resumed.iterate() for _ in range(2)]
    resumed.close()
    names = [f"{kind}/{task}" for kind in ("allocation", "running_success") for task in tasks]
    for one, other in zip(straight, again, strict=True):
        assert [one[name] for name in names] == [other[name] for name in names]
        assert sum(other[f"allocation/{task}"] for task in tasks) == 4
    # Random weights fail, and the more often a task was tried, the surer that is.
    assert all(again[1][f"running_success/{task}"] < 0.5 for task in tasks)


def test_state_is_what_a_checkpoint_may_hold(tmp_path):
    torch.save(two_tasks().state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = two_tasks()
    fresh.load_state_dict(loaded)
    assert fresh.state_dict() == loaded
