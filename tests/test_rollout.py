import os
import pickle
import signal

import numpy as np
import pytest
import torch
from fake_policy import EXECUTE, FakePolicy

from actors.env_host import EnvAccess, EnvHost
from actors.episodes import EpisodeSource
from actors.lane import replace_rows
from actors.rollout import RolloutCollector
from envservers.counting import TASKS, CountingSuite, check_transition, success_step
from envservers.inprocess import InprocessClient
from vlarl.config.process_schema import EnvConfig
from vlarl.errors import EnvContractError, EnvServerDied, EnvServerError, UserError

T, ENVS, LENGTH = 6, 3, 10


def counting_reward(seen):
    """Every transition the collector makes goes through here, and is held to be a true one."""
    check_transition(seen.before, seen.actions, seen.after)
    return seen.after.executed.astype(np.float32)


def make_collector(clients, reward=counting_reward, seed=0, **options):
    streams = sum(client.num_envs for client in clients)
    source = EpisodeSource(TASKS, (seed,), streams)
    return RolloutCollector(clients, FakePolicy(), reward, source, T, seed=(seed,), **options)


def inprocess_clients(count=2, **options):
    return [InprocessClient(CountingSuite(ENVS, LENGTH, **options)) for _ in range(count)]


@pytest.fixture
def host():
    config = EnvConfig(
        "counting", envs_per_server=ENVS, options={"episode_length": LENGTH}, deadline_seconds=5.0
    )
    host = EnvHost(config)
    access = EnvAccess(config, host)
    yield host, access
    access.close()
    host.close()


def columns(batch):
    """[N, T, 8] what every decision was shown, and all other columns as [N, T]."""
    names = ("time", "reward", "terminated", "truncated", "window_end", "next_value", "value")
    rows = {name: batch[name].reshape(-1, T) for name in names}
    return batch["context", "shown"].reshape(-1, T, 8), rows


def test_every_stream_gives_exactly_T_decisions_in_order(host):
    batch, stats = make_collector(host[1].clients).collect(version=7)
    streams = 2 * ENVS
    assert batch.shape == (streams * T,)
    assert stats.decisions == streams * T
    assert torch.equal(batch["stream"], torch.arange(streams).repeat_interleave(T))
    assert torch.equal(batch["time"], torch.arange(T).repeat(streams))
    assert (batch["version"] == 7).all()


def test_rows_tell_one_history_across_windows(host):
    collector = make_collector(host[1].clients)
    shown, rows = zip(*(columns(collector.collect()[0]) for _ in range(3)), strict=True)
    shown = torch.cat(shown, dim=1).numpy()
    ended = torch.cat([r["terminated"] | r["truncated"] for r in rows], dim=1).numpy()
    reward = torch.cat([r["reward"] for r in rows], dim=1).numpy()
    for stream in range(shown.shape[0]):
        for t in range(3 * T - 1):
            now, then = shown[stream, t], shown[stream, t + 1]
            assert now[0] == then[0] == stream % ENVS
            if ended[stream, t]:
                assert then[2] == 0
                assert then[1] == now[1] + 1
            else:
                assert then[2] == now[2] + reward[stream, t]
                assert then[1] == now[1]


def test_ends_are_what_the_episode_says(host):
    collector = make_collector(host[1].clients)
    kinds = set()
    for _ in range(4):
        batch, _ = collector.collect()
        shown, rows = columns(batch)
        seeds, tasks, steps = shown[..., 3].int(), shown[..., 4].int(), shown[..., 2].int()
        for stream in range(len(shown)):
            for t in range(T):
                # Seeds are shown modulo 2**20, and training seeds lie below it.
                goal = success_step(int(seeds[stream, t]), TASKS[tasks[stream, t]], LENGTH)
                end = int(steps[stream, t]) + int(rows["reward"][stream, t])
                assert bool(rows["terminated"][stream, t]) == (end == goal)
                assert bool(rows["truncated"][stream, t]) == (end == LENGTH < goal)
                kinds.add((end == goal, end == LENGTH < goal))
    assert kinds == {(False, False), (True, False), (False, True)}


def test_window_end_is_valued_at_the_final_observation(host):
    shown, rows = columns(make_collector(host[1].clients).collect()[0])
    assert rows["window_end"][:, -1].all()
    assert not rows["window_end"][:, :-1].any()
    # The fake policy's value is the step number it is shown.
    final = shown[:, -1, 2] + rows["reward"][:, -1]
    assert torch.equal(rows["next_value"][:, -1], final)
    assert not rows["next_value"][:, :-1].any()
    assert torch.equal(rows["value"], shown[..., 2])


def test_time_limits_are_valued_when_asked():
    clients = inprocess_clients()
    collector = make_collector(clients, bootstrap_time_limit=True)
    found = 0
    for _ in range(3):
        _, rows = columns(collector.collect()[0])
        cut = rows["truncated"]
        found += int(cut.sum())
        assert (rows["next_value"][cut] == LENGTH).all()
    assert found


def test_killed_server_is_replaced_and_its_window_begins_anew(host):
    servers, access = host
    killed = []

    def reward(seen):
        if seen.before.step.sum() and not killed:
            killed.append(servers.pids()[0])
            os.kill(killed[0], signal.SIGKILL)
        return counting_reward(seen)

    collector = make_collector(access.clients, reward, restart=access.restart)
    batch, stats = collector.collect()
    assert killed
    assert stats.restarts == 1
    # How many decisions it had given by then is a matter of timing; all its slots lose theirs.
    assert stats.dropped_decisions in range(0, ENVS * T + 1, ENVS)
    assert stats.dropped_episodes == ENVS
    shown, _ = columns(batch)
    assert shown.shape == (2 * ENVS, T, 8)
    # Its streams hold the new process's history alone, from the first episode's first step on.
    assert (shown[:ENVS, 0, 1] == 1).all()
    assert (shown[:ENVS, 0, 2] == 0).all()
    assert killed[0] not in servers.pids()


@pytest.mark.parametrize(
    ("fault", "mode", "kind"),
    [
        ("nan_at", "inprocess", EnvContractError),
        ("nan_at", "spawn", EnvContractError),
        ("raise_at", "inprocess", EnvServerError),
        ("raise_at", "spawn", EnvServerError),
        ("crash_at", "spawn", EnvServerDied),
    ],
)
def test_a_server_that_keeps_failing_ends_the_run_by_name(fault, mode, kind):
    config = EnvConfig("counting", servers=1, envs_per_server=2, mode=mode, options={fault: 2})
    host = None if mode == "inprocess" else EnvHost(config)
    access = EnvAccess(config, host)
    collector = make_collector(access.clients, restart=access.restart, max_restarts=2)
    message = r"env server 0 failed once more than env\.restarts=2"
    with pytest.raises(EnvServerError, match=message) as caught:
        collector.collect()
    assert type(caught.value) is kind
    assert type(pickle.loads(pickle.dumps(caught.value))) is kind
    access.close()
    if host is not None:
        host.close()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_reward_that_is_no_number_is_the_users_mistake(wrong):
    collector = make_collector(inprocess_clients(), lambda seen: np.full(len(seen.after), wrong))
    with pytest.raises(UserError, match="reward function"):
        collector.collect()


def test_state_dict_continues_exactly():
    first = make_collector(inprocess_clients())
    first.collect()
    state = first.state_dict()
    expected = [first.collect()[0] for _ in range(2)]
    second = make_collector(inprocess_clients())
    second.load_state_dict(state)
    for batch in expected:
        again = second.collect()[0]
        assert (batch == again).all()


def test_lending_clients_leaves_episodes_as_they_were():
    lent, kept = make_collector(inprocess_clients()), make_collector(inprocess_clients())
    lent.collect(), kept.collect()
    starts = [EpisodeSource(TASKS, (9,), 1).next(0)] * ENVS
    lent.lend(lambda clients: [client.reset(np.arange(ENVS), starts) for client in clients])
    assert (lent.collect()[0] == kept.collect()[0]).all()


def test_resuming_with_other_environments_is_refused():
    state = make_collector(inprocess_clients(2)).state_dict()
    with pytest.raises(UserError, match="2 env servers"):
        make_collector(inprocess_clients(1)).load_state_dict(state)


def test_episode_source_is_uniform_and_its_streams_differ():
    source = EpisodeSource(TASKS, (3,), 2)
    drawn = [[source.next(stream) for _ in range(40)] for stream in range(2)]
    for stream in drawn:
        assert sum(start.task == TASKS[0] for start in stream) == 20
        assert all(start.seed < 1_000_000 for start in stream)
    assert not {s.seed for s in drawn[0]} & {s.seed for s in drawn[1]}


def test_replace_rows_exchanges_every_field():
    suite = CountingSuite(ENVS)
    starts = [EpisodeSource(TASKS, (1,), 1).next(0)] * ENVS
    whole = suite.reset(np.arange(ENVS), starts)
    actions = np.ones((1, EXECUTE, 3), np.float32)
    part = suite.step(np.array([1]), actions)
    mixed = replace_rows(whole, part)
    assert mixed.step.tolist() == [0, EXECUTE, 0]
    assert mixed.executed.tolist() == [0, EXECUTE, 0]
    assert np.array_equal(mixed.images["ego"][1], part.images["ego"][0])
    assert np.array_equal(mixed.images["ego"][2], whole.images["ego"][2])
    assert mixed.info["remaining"][1] == part.info["remaining"][0]
