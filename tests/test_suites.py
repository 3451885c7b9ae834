"""Several suites in one run: real servers, their names, their evaluation, and servers that move."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fake_policy import FakePolicy
from two_robots import two_robots

from actors.arena import Arena, can_be_swapped
from actors.env_host import EnvAccess, EnvHost
from actors.evaluation import EvaluationRequest, evaluate, evaluate_arenas
from actors.rollout import RolloutCollector
from actors.rollout_stats import RolloutStats, ended
from actors.runtime import InprocessRuntime
from actors.suite_episodes import SuiteEpisodes
from envservers.counting import TASKS, check_transition
from vlarl.allocation import servers_by_difficulty
from vlarl.config.load import load_config
from vlarl.config.paths import configs_folder
from vlarl.config.process_schema import AllocationConfig, EnvConfig, SuiteConfig
from vlarl.errors import ConfigError, UserError

ENVS, T = 2, 6
RED, BLUE = TASKS
LONG = SuiteConfig("counting", (), 2, ENVS, options={"episode_length": 12})
SHORT = SuiteConfig("counting", (BLUE,), 2, ENVS, image_size=32, options={"episode_length": 5})
BOTH = EnvConfig(suites={"long": LONG, "short": SHORT}, mode="inprocess", deadline_seconds=20.0)
NAMES = [f"long/{RED}", f"long/{BLUE}", f"short/{BLUE}"]
PLAYED = {"long": TASKS, "short": (BLUE,)}
DEBUG = configs_folder() / "rl" / "debug_suites.yaml"
SMALL = [
    "env.suites.manipulation.servers=1", "env.suites.navigation.servers=1",
    "env.suites.manipulation.image_size=32", "env.allocation.suites=false",
    "ppo.decisions_per_stream=2", "ppo.minibatch=8", "ppo.value_warmup_iterations=0",
    "evaluation.episodes=4",
]  # fmt: skip


def counting_reward(seen):
    """Every transition goes through here, and is held to be a true one."""
    check_transition(seen.before, seen.actions, seen.after)
    return seen.after.executed.astype(np.float32)


UNIFORM = AllocationConfig()


def collector_of(access, config=UNIFORM, **options):
    streams, first = [], 0
    for client in access.clients:
        streams.append(range(first, first + client.num_envs))
        first += client.num_envs
    source = SuiteEpisodes(PLAYED, (0,), access.suites, streams, config)
    policy = FakePolicy()
    return RolloutCollector(
        access.clients,
        policy,
        counting_reward,
        source,
        T,
        restart=access.restart,
        suites=access.suites,
        move=(lambda i, suite: (access.restart(i, suite), policy)) if config.suites else None,
        **options,
    )


def test_servers_of_two_suites_fill_one_batch():
    config = dataclasses.replace(BOTH, mode="spawn")
    host = EnvHost(config)
    access = EnvAccess(config, host)
    try:
        assert access.suites == ["long", "long", "short", "short"]
        assert {name: spec.max_steps for name, spec in access.specs.items()} == {
            "long": 12,
            "short": 5,
        }
        collector = collector_of(access)
        for _ in range(2):
            batch, stats = collector.collect()
        access.restart(3)
        assert access.clients[3].spec.max_steps == 5, "a server comes back as what it was"
        before = host.pids()
        assert access.restart(0, "short").spec.max_steps == 5
        assert access.suites == ["short", "long", "short", "short"]
        assert [one == other for one, other in zip(before, host.pids(), strict=True)] == [
            False, True, True, True
        ]  # fmt: skip
    finally:
        access.close()
        host.close()
    task = batch["task"].reshape(4 * ENVS, T)
    assert set(task[: 2 * ENVS].flatten().tolist()) == {0, 1}
    assert (task[2 * ENVS :] == 2).all()
    assert torch.equal(batch["stream"], torch.arange(4 * ENVS).repeat_interleave(T))
    assert (batch["window_end"].reshape(-1, T).sum(dim=1) == 1).all()
    assert stats.decisions == 4 * ENVS * T
    assert set(stats.episodes) <= set(NAMES)
    assert f"short/{BLUE}" in stats.episodes
    assert f"success_rate/short/{BLUE}" in stats.metrics()


def test_servers_of_another_suite_are_refused_by_address():
    host = EnvHost(EnvConfig("counting", servers=1, envs_per_server=1, image_size=16))
    (address,) = host.addresses()
    suites = {"walk": SuiteConfig("navigation", servers=1, addresses=(address,))}
    config = EnvConfig(mode="connect", suites=suites, deadline_seconds=20.0)
    try:
        with pytest.raises(UserError, match=r"env\.suites\.walk\.addresses: .* simulates counting"):
            EnvAccess(config, EnvHost(config))
    finally:
        host.close()


def test_workers_share_the_servers_of_every_suite():
    suites = {"a": dataclasses.replace(LONG, servers=3), "b": SHORT}
    config = EnvConfig(suites=suites, mode="inprocess")
    found = [EnvAccess(config, None, (k, 2)) for k in range(2)]
    assert [each.suites for each in found] == [["a", "a", "b"], ["a", "b"]]
    assert list(found[1].specs) == ["a", "b"]


def arenas(config=BOTH):
    access = EnvAccess(config, None)
    return [
        Arena(
            FakePolicy(),
            {i: c for i, c in enumerate(access.clients) if access.suites[i] == suite},
            tasks,
            suite,
        )
        for suite, tasks in PLAYED.items()
    ]


def test_episodes_of_an_evaluation_are_spread_over_the_tasks_of_all_suites():
    request = EvaluationRequest(9, 1_000_000, videos=2)
    result = evaluate_arenas(arenas(), request)
    assert {
        task: row["episodes"] for task, row in result.summary["tasks"].items()
    } == dict.fromkeys(NAMES, 3)
    assert result.summary["episodes"] == 9
    assert [film.caption.partition(":")[0] for film in result.films] == NAMES[:2]
    # Each episode is what it is in a run of its suite alone, on another number of servers.
    alone = EnvAccess(
        EnvConfig("counting", (BLUE,), 1, 3, "inprocess", options=SHORT.options), None
    )
    own = [row for row in result.summary["outcomes"] if row["task"] == f"short/{BLUE}"]
    assert [row["seed"] for row in own] == [1_000_002, 1_000_005, 1_000_008]
    for row in own:
        again = evaluate(FakePolicy(), alone.clients, EvaluationRequest(1, row["seed"])).summary
        assert {**again["outcomes"][0], "task": row["task"]} == row


def test_instructions_are_swapped_within_a_suite():
    result = evaluate_arenas(arenas(), EvaluationRequest(6, 1_000_000, swap=True)).summary
    assert set(result["tasks"]) == {f"long/{RED}", f"long/{BLUE}"}
    assert all(row["task"] != row["named"] for row in result["outcomes"])
    assert can_be_swapped(BOTH, NAMES)
    assert not can_be_swapped(BOTH, NAMES[1:])
    assert can_be_swapped(EnvConfig(), ["a", "b"])
    assert not can_be_swapped(EnvConfig(), ["a"])


def test_an_evaluation_of_fewer_episodes_than_tasks_leaves_suites_alone():
    result = evaluate_arenas(arenas(), EvaluationRequest(2, 1_000_000)).summary
    assert set(result["tasks"]) == {f"long/{RED}", f"long/{BLUE}"}


@pytest.mark.parametrize(
    ("current", "hard", "floor", "fewest", "expected"),
    [
        ([2, 2], [0.5, 0.5], 0.0, 1, [2, 2]),
        # Due 2.9 and 1.1: less than a whole server.
        ([2, 2], [0.725, 0.275], 0.0, 1, [2, 2]),
        ([2, 2], [0.75, 0.25], 0.0, 1, [3, 1]),
        # And not back again before they are alike.
        ([3, 1], [0.55, 0.45], 0.0, 1, [3, 1]),
        ([3, 1], [0.5, 0.5], 0.0, 1, [2, 2]),
        ([4, 4], [0.9, 0.1], 0.0, 1, [7, 1]),
        ([4, 4], [0.9, 0.1], 0.5, 1, [6, 2]),
        ([4, 4], [0.9, 0.1], 0.0, 3, [5, 3]),
    ],
)
def test_servers_by_difficulty(current, hard, floor, fewest, expected):
    found = servers_by_difficulty(np.array(current), np.array(hard), floor, 4.0, fewest)
    assert found.tolist() == expected


def test_servers_keep_their_number_and_move_only_for_a_whole_one():
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(300):
        suites, fewest = int(rng.integers(2, 6)), int(rng.integers(1, 4))
        current = fewest + rng.integers(0, 6, suites)
        hard, floor = rng.random(suites), float(rng.random())
        found = servers_by_difficulty(current, hard, floor, 4.0, fewest)
        assert found.sum() == current.sum()
        assert found.min() >= fewest
        moved += (found != current).any()
        # Then it is settled: the same difficulty moves nothing more.
        assert (servers_by_difficulty(found, hard, floor, 4.0, fewest) == found).all()
    assert 50 < moved < 300


MOVING = AllocationConfig("failure", suites=True, floor=0.0, margin=0.0)


def test_a_server_moves_to_the_harder_suite_and_its_streams_begin_anew():
    access = EnvAccess(BOTH, None)
    collector = collector_of(access, MOVING, alone=False)
    first, stats = collector.collect()
    assert stats.running_success == {}, "the evidence of all workers is still to come"
    assert stats.allocation == {f"long/{RED}": 2, f"long/{BLUE}": 2, f"short/{BLUE}": 4}
    easy = {f"long/{task}": 50 for task in TASKS}
    rates = collector.allocate({**easy, f"short/{BLUE}": 100}, {**easy, f"short/{BLUE}": 0})
    assert rates[f"short/{BLUE}"] < 0.01
    # One stays, which has an environment for each task.
    assert collector.suites == access.suites == ["long", "short", "short", "short"]
    second, stats = collector.collect()
    assert stats.allocation == {f"long/{RED}": 1, f"long/{BLUE}": 1, f"short/{BLUE}": 6}
    assert first.shape == second.shape == (4 * ENVS * T,)
    assert torch.equal(first["stream"], second["stream"])
    assert (second["task"].reshape(-1, T)[ENVS:] == 2).all()
    shown = second["context", "shown"].reshape(-1, T, 8)
    assert (shown[ENVS : 2 * ENVS, 0, 1] == 1).all(), "the first episode of a new process"
    assert (shown[ENVS : 2 * ENVS, 0, 2] == 0).all(), "its first step"
    assert (shown[2 * ENVS :, 0, 1] > 1).all(), "those that were there went on"
    # The moved streams' scenes are seen nowhere else.
    scenes = [set(shown[stream, :, 3].tolist()) for stream in range(4 * ENVS)]
    assert len(set.union(*scenes)) == sum(map(len, scenes))


def test_a_run_with_servers_that_moved_resumes():
    first = collector_of(EnvAccess(BOTH, None), MOVING, alone=False)
    first.collect()
    seen = dict.fromkeys(NAMES, 50), {NAMES[0]: 50, NAMES[1]: 50, NAMES[2]: 0}
    first.allocate(*seen)
    moved = first.state_dict()
    first.collect()
    later = first.state_dict()
    second = collector_of(EnvAccess(BOTH, None), MOVING, alone=False)
    second.load_state_dict(moved)
    assert second.suites == first.suites == ["long", "short", "short", "short"]
    second.collect()
    third = collector_of(EnvAccess(BOTH, None), MOVING, alone=False)
    third.load_state_dict(later)
    first.allocate(*seen[::-1])
    for each in (second, third):
        each.allocate(*seen[::-1])
    expected = first.collect()
    for each in (second, third):
        batch, stats = each.collect()
        assert (batch == expected[0]).all()
        assert stats.allocation == expected[1].allocation


def test_lending_leaves_a_moved_server_where_it_is():
    access = EnvAccess(BOTH, None)
    collector = collector_of(access, MOVING, alone=False)
    collector.collect()
    collector.allocate(dict.fromkeys(NAMES, 50), {NAMES[0]: 50, NAMES[1]: 50, NAMES[2]: 0})
    before = collector.suites
    collector.lend(lambda clients: evaluate_arenas(
        [Arena(FakePolicy(), {1: clients[1]}, (BLUE,), "short")], EvaluationRequest(2, 1_000_000)
    ))  # fmt: skip
    assert collector.suites == before


def test_other_suites_are_not_resumed():
    state = collector_of(EnvAccess(BOTH, None)).state_dict()
    other = dataclasses.replace(BOTH, suites={"a": LONG, "short": SHORT})
    access = EnvAccess(other, None)
    source = SuiteEpisodes(
        {"a": TASKS, "short": (BLUE,)}, (0,), access.suites,
        np.arange(4 * ENVS).reshape(4, ENVS).tolist(), AllocationConfig(),
    )  # fmt: skip
    stranger = RolloutCollector(
        access.clients, FakePolicy(), counting_reward, source, T, suites=access.suites
    )
    with pytest.raises(UserError, match="long, long, short, short, those of this run's a, a"):
        stranger.load_state_dict(state)
    moved = {**state, "suites": ["long", "short", "short", "short"]}
    with pytest.raises(UserError, match=r"set env\.suites as before"):
        collector_of(EnvAccess(BOTH, None)).load_state_dict(moved)


def test_an_allocation_without_effect_on_any_suite_is_refused():
    with pytest.raises(ConfigError, match="one task in each suite"):
        SuiteEpisodes(
            {"a": (RED,), "b": (BLUE,)}, (0,), ["a", "b"], [[0], [1]], AllocationConfig("failure")
        )


def test_workers_allocate_by_what_all_of_them_saw():
    """Two workers told the sum have the rates of one that saw everything."""
    config = AllocationConfig("failure", margin=0.0)
    workers = [collector_of(EnvAccess(BOTH, None), config, alone=False) for _ in range(2)]
    whole = SuiteEpisodes(PLAYED, (0,), ["long", "short"], [range(8), range(8, 16)], config)
    for _ in range(3):
        stats = [worker.collect()[1] for worker in workers]
        seen = ended(stats)
        assert sum(seen[0].values()) == sum(s.metrics()["episodes"] for s in stats) > 0
        rates = [worker.allocate(*seen) for worker in workers]
        whole.allocate(*seen)
        assert rates[0] == rates[1] == whole.rates()


def test_what_ended_is_added_up_by_task():
    stats = [
        RolloutStats(1, 1, episodes, successes, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1)
        for episodes, successes in (({"a": 2}, {"a": 1}), ({"a": 1, "b": 3}, {"a": 1, "b": 0}))
    ]
    assert ended(stats) == ({"a": 3, "b": 3}, {"a": 2, "b": 0})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robots") / "model"
    two_robots().save_pretrained(folder)
    return folder


def without_times(metrics):
    measured = ("second", "memory_bytes")
    return {k: v for k, v in metrics.items() if not any(word in k for word in measured)}


def test_two_robots_learn_in_one_run_that_resumes(checkpoint, tmp_path):
    words = [*SMALL, f"model.checkpoint={checkpoint}", "model.preset=tiny"]
    config = load_config(DEBUG, words)
    runtime = InprocessRuntime(config)
    first = runtime.iterate()
    assert first["decisions"] == 8
    assert first["ratio_start"] < 1e-4
    assert first["grad_norm/expert"] > 0
    assert {f"allocation/{suite}/{task}" for suite, group in config.env.suites.items()
            for task in group.tasks} <= set(first)  # fmt: skip
    summary = runtime.evaluate(EvaluationRequest(4, 1_000_000)).summary
    assert [row["episodes"] for row in summary["tasks"].values()] == [1, 1, 1, 1]
    folder = tmp_path / "saved"
    folder.mkdir()
    runtime.save(folder)
    straight = runtime.iterate()
    again = runtime.evaluate(EvaluationRequest(4, 1_000_000)).summary
    runtime.close()
    resumed = InprocessRuntime(config, folder)
    assert without_times(resumed.iterate()) == without_times(straight)
    assert resumed.evaluate(EvaluationRequest(4, 1_000_000)).summary == again
    resumed.close()


def test_the_backbone_learns_from_rows_that_see_different_cameras(checkpoint):
    rates = "{vision: 1.0e-5, language: 1.0e-5, expert: 1.0e-5, value: 1.0e-3}"
    words = [f"model.checkpoint={checkpoint}", f"ppo.optimizer.learning_rates={rates}"]
    runtime = InprocessRuntime(load_config(DEBUG, [*SMALL, *words]))
    found = runtime.iterate()
    runtime.close()
    # The learner's own forward, of rows in another order and padded, is the policy's.
    assert found["ratio_start"] < 1e-3
    assert found["log_prob_gap"] < 1e-3
