"""Rollout that never waits: true histories, bounded queue, pauses, errors, no thread left."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_policy import FakePolicy
from test_rollout import ENVS, LENGTH, T, counting_reward, inprocess_clients, make_collector
from tiny_model import make_model, observed
from torch import nn

from actors.acting import refuse_mode_dependence
from actors.batching import Batching
from actors.controller import train
from actors.env_host import EnvAccess, EnvHost
from actors.episodes import EpisodeSource
from actors.fair_lock import FairLock
from actors.runtime import InprocessRuntime
from actors.stream import RolloutStream
from envservers.counting import TASKS, CountingSuite
from envservers.inprocess import InprocessClient
from vlarl.config.load import load_config
from vlarl.config.process_schema import EnvConfig
from vlarl.config.schema import ModelConfig, SamplingConfig
from vlarl.errors import CheckpointError, EnvServerDied, EnvServerError, UserError
from vlarl.policy import Policy
from vlarl.runs import RunFolder

CONFIG = Path(__file__).parents[1] / "configs" / "rl" / "debug_async.yaml"
DECISIONS = 2 * ENVS * T


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollout")]


class Streaming:
    """A stream whose version the test decides."""

    def __init__(self, collector, max_staleness=10):
        self.version = 0
        self.collector = collector
        self.stream = RolloutStream(collector, lambda: self.version, max_staleness, threads=1)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stream.close()


@pytest.fixture(params=["inprocess", "spawn", "joined"])
def streaming(request):
    """Counting environments in this process, in others, and joined for the policy."""
    if request.param == "inprocess":
        with Streaming(make_collector(inprocess_clients())) as streaming:
            yield streaming
        return
    options = {"episode_length": LENGTH, "seconds_per_step": 0.001}
    config = EnvConfig("counting", envs_per_server=ENVS, options=options)
    host = EnvHost(config)
    access = EnvAccess(config, host)
    batching = Batching(2 * ENVS, 0.002) if request.param == "joined" else None
    with Streaming(make_collector(access.clients, batching=batching)) as streaming:
        yield streaming
    access.close()
    host.close()


def check_history(batch):
    """Every stream is a whole segment in which each decision follows from the one before.

    Transitions themselves were proved by the counting reward as they were made.
    """
    assert torch.equal(batch["time"], torch.arange(T).repeat(len(batch) // T))
    streams = batch["stream"].view(-1, T)
    assert (streams == streams[:, :1]).all()
    assert len(streams[:, 0].unique()) == len(streams)
    shown = batch["context", "shown"].view(-1, T, 8)
    ended = (batch["terminated"] | batch["truncated"]).view(-1, T)
    reward = batch["reward"].view(-1, T)
    assert (shown[:, 1:, 0] == shown[:, :1, 0]).all()
    assert torch.equal(shown[:, 1:, 1], shown[:, :-1, 1] + ended[:, :-1])
    onward = torch.where(ended, 0.0, shown[..., 2] + reward)
    assert torch.equal(shown[:, 1:, 2], onward[:, :-1])
    assert batch["window_end"].view(-1, T)[:, -1].all()
    # The fake policy's value is the step number it is shown.
    final = shown[:, -1, 2] + reward[:, -1]
    assert torch.equal(batch["next_value"].view(-1, T)[:, -1], final)


def test_batches_are_whole_true_segments_one_after_the_other(streaming):
    seen = {}
    for version in range(5):
        streaming.version = version
        batch, stats = streaming.stream.take()
        check_history(batch)
        assert len(batch) >= DECISIONS
        assert stats.decisions == len(batch)
        assert int((version - batch["version"]).min()) >= 0
        for shown in batch["context", "shown"].view(-1, T, 8)[:, 0]:
            # Of one environment: its next segment begins where it is by then.
            seen.setdefault(int(shown[0]), []).append((int(shown[1]), int(shown[2])))
    assert sum(len(starts) for starts in seen.values()) >= 5 * 2 * ENVS


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("nothing came of it")


def test_rollout_goes_on_while_learning_takes_nothing(streaming):
    streaming.stream.take()
    policy = streaming.collector._lanes[0].policy
    before = sum(n for _, n, _ in policy.calls)
    # An update that takes as long as five iterations of rollout.
    wait_until(lambda: sum(n for _, n, _ in policy.calls) > before + 5 * DECISIONS)
    batch, stats = streaming.stream.take()
    check_history(batch)
    assert stats.dropped_queue_full >= 2 * DECISIONS
    assert stats.dropped_queue_full % (ENVS * T) == 0
    assert stats.metrics()["learner_waiting_seconds"] >= 0


def test_decisions_over_age_do_not_count_as_enough():
    with Streaming(make_collector(inprocess_clients()), max_staleness=1) as streaming:
        streaming.stream.take()
        policy = streaming.collector._lanes[0].policy
        calls = len(policy.calls)
        wait_until(lambda: len(policy.calls) > calls + 4 * T)
        streaming.version = 2
        batch, _ = streaming.stream.take()
        young = 2 - batch["version"] <= 1
        assert int(young.sum()) >= DECISIONS
        assert not young.all()
        check_history(batch)


def test_the_policy_and_its_version_are_asked_with_the_lock_held():
    lock, held = threading.Lock(), []

    class Watched(FakePolicy):
        def act(self, *given, **named):
            held.append(lock.locked())
            return super().act(*given, **named)

        def value(self, observations):
            held.append(lock.locked())
            return super().value(observations)

    collector = make_collector(inprocess_clients(), weights_lock=lock)
    for lane in collector._lanes:
        lane.policy = Watched()

    def version():
        held.append(lock.locked())
        return 0

    collector.begin()
    for _ in range(3 * T):
        collector.turn(version, 0.0)
        collector.take_segments()
    assert len(held) > 6 * T
    assert all(held)


def test_rollout_has_threads_of_its_own_number():
    before = torch.get_num_threads()
    collector, found = make_collector(inprocess_clients()), []

    class Watched(FakePolicy):
        def act(self, *given, **named):
            found.append(torch.get_num_threads())
            return super().act(*given, **named)

    for lane in collector._lanes:
        lane.policy = Watched()
    torch.set_num_threads(3)
    with Streaming(collector) as streaming:
        streaming.stream.take()
        assert torch.get_num_threads() == 3
    torch.set_num_threads(before)
    assert set(found) == {1}


def test_the_lock_goes_to_who_waits_not_to_who_comes_back():
    lock, turns, done = FairLock(), [], threading.Event()

    def greedy():
        while not done.is_set():
            with lock:
                turns.append(0)
                time.sleep(0.001)

    thread = threading.Thread(target=greedy)
    thread.start()
    wait_until(lambda: turns)
    waited = []
    for _ in range(50):
        before = len(turns)
        with lock:
            waited.append(len(turns) - before)
    done.set()
    thread.join()
    # One that was under way, and one that began between the count and the wait.
    assert max(waited) <= 2


def test_a_pause_settles_everything_and_loses_nothing(streaming):
    taken = [streaming.stream.take()[0]]
    for _ in range(3):
        streaming.stream.pause()
        starts = [EpisodeSource(TASKS, (9,), 1).next(0)] * ENVS
        streaming.collector.lend(
            lambda clients, starts=starts: [c.reset(np.arange(ENVS), starts) for c in clients]
        )
        batch, stats = streaming.stream.take()
        taken.append(batch)
        assert stats.dropped_decisions == stats.dropped_episodes == 0
    for batch in taken:
        check_history(batch)


def test_another_stream_goes_on_from_its_state():
    with Streaming(make_collector(inprocess_clients())) as first:
        first.stream.take()
        first.stream.pause()
        state = first.collector.state_dict()
        assert sum(state["counters"]) > 2 * ENVS
    second = make_collector(inprocess_clients())
    second.load_state_dict(state)
    with Streaming(second) as resumed:
        batch, _ = resumed.stream.take()
        check_history(batch)
        # Not its first episodes: environments are where they were.
        assert (batch["context", "shown"].view(-1, T, 8)[:, 0, 1] > 1).all()


@pytest.mark.parametrize(("fault", "kind"), [("raise_at", EnvServerError), ("crash_at", None)])
def test_a_failing_server_ends_the_run_where_segments_are_taken(fault, kind):
    mode = "inprocess" if fault == "raise_at" else "spawn"
    config = EnvConfig("counting", servers=1, envs_per_server=2, mode=mode, options={fault: 2})
    host = None if mode == "inprocess" else EnvHost(config)
    access = EnvAccess(config, host)
    collector = make_collector(access.clients, restart=access.restart, max_restarts=1)
    with Streaming(collector) as streaming:
        with pytest.raises(EnvServerError, match=r"env server 0 failed once more") as caught:
            streaming.stream.take()
        assert type(caught.value) is (kind or EnvServerDied)
        # It stays so, and pausing does not hide it.
        with pytest.raises(EnvServerError):
            streaming.stream.pause()
    access.close()
    if host is not None:
        host.close()


def test_a_server_that_fails_once_is_replaced_and_counted():
    config = EnvConfig("counting", mode="inprocess", envs_per_server=ENVS, options={"raise_at": 9})
    access = EnvAccess(config, None)
    # Every server raises in its ninth call, the third of its second window.
    collector = make_collector(access.clients, restart=access.restart, max_restarts=1000)
    with Streaming(collector) as streaming:
        taken = [streaming.stream.take() for _ in range(3)]
    for batch, _ in taken:
        check_history(batch)
    restarts = sum(stats.restarts for _, stats in taken)
    assert restarts >= 1
    assert sum(stats.dropped_episodes for _, stats in taken) == ENVS * restarts
    assert sum(stats.dropped_decisions for _, stats in taken) == 2 * ENVS * restarts


def test_a_mistake_in_the_reward_reaches_the_caller_as_itself():
    collector = make_collector(inprocess_clients(), lambda seen: np.full(len(seen.after), np.nan))
    with Streaming(collector) as streaming, pytest.raises(UserError, match="reward function"):
        streaming.stream.take()


def test_layers_that_differ_between_training_and_evaluation_are_refused():
    refuse_mode_dependence(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))
    for layer in (nn.Dropout(0.1), nn.BatchNorm1d(2)):
        with pytest.raises(CheckpointError, match=r"1 \((Dropout|BatchNorm1d)\).*rollout.mode"):
            refuse_mode_dependence(nn.Sequential(nn.Linear(2, 2), layer))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_shared_policy_leaves_the_mode_alone_which_changes_no_number(checkpointed):
    config = ModelConfig(checkpoint_activations=checkpointed)
    model = make_model("tiny-pooled", config)
    refuse_mode_dependence(model)
    policy, seen = Policy(model, SamplingConfig(execute_steps=4), shared=True), observed(3)
    found = []
    for mode in (True, False):
        model.train(mode)
        decisions = policy.act(seen, torch.Generator().manual_seed(0), explore=True)
        found.append([decisions.chunk, decisions.context, decisions.value, policy.value(seen)])
        assert model.training == mode
    for trained, evaluated in zip(*found, strict=True):
        assert (trained == evaluated).all()


class WithoutSnapshots(CountingSuite):
    """As a suite that cannot tell its state."""

    def snapshot(self):
        raise NotImplementedError


def test_where_episodes_start_anew_after_an_evaluation_begun_windows_are_dropped_and_counted():
    collector = make_collector([InprocessClient(WithoutSnapshots(ENVS, LENGTH))])
    collector.begin()
    while len(collector._lanes[0].window) < 2:
        collector.turn(lambda: 0, 0.0)
    collector.settle()
    begun = len(collector._lanes[0].window)
    collector.lend(lambda clients: None)
    collector.begin()
    assert collector.take_segments()[1].dropped_decisions == begun * ENVS
    with Streaming(collector) as streaming:
        check_history(streaming.stream.take()[0])


def async_config(tmp_path, *overrides):
    return load_config(CONFIG, [f"output={tmp_path}", *overrides])


@pytest.mark.slow
def test_the_debug_config_trains_saves_evaluates_and_resumes(tmp_path):
    torch.set_num_threads(1)
    overrides = ["ppo.iterations=2", "evaluation.every=1", "evaluation.episodes=2"]
    result = train(async_config(tmp_path, *overrides))
    assert result["steps"] == 2
    run = RunFolder(tmp_path / "debug_async")
    for row in run.metrics():
        assert row["decisions"] >= 16
        assert 0 <= row["batch_age_mean"] <= row["batch_age"] <= 2
        assert 0 < row["batch_fill"] <= 1
        assert row["dropped_over_age"] >= 0
    overrides[0] = "ppo.iterations=3"
    assert train(async_config(tmp_path, *overrides, "resume=auto"))["steps"] == 3
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]


@pytest.mark.parametrize("trained", ["expert", "language"])
def test_rollout_and_learning_share_one_model_and_go_on_together(tmp_path, trained):
    """With the backbone's gradients too: both threads run all of the model at once."""
    torch.set_num_threads(1)
    rates = f"ppo.optimizer.learning_rates={{{trained}: 1e-4, value: 1e-3}}"
    runtime = InprocessRuntime(async_config(tmp_path, rates, "ppo.value_warmup_iterations=0"))
    learner = runtime._learner
    (policy,) = learner.worker._policies.values()
    assert policy._model is learner.model
    during, acted = [], []
    update, act = learner._learner.update, policy.act

    def counted(*given, **named):
        acted.append(learner.version)
        return act(*given, **named)

    def held_up(*given, **named):
        """An update in which the rollout makes three decisions at the least."""
        before = len(acted)
        wait_until(lambda: len(acted) >= before + 3)
        metrics = update(*given, **named)
        during.append(len(acted) - before)
        return metrics

    policy.act, learner._learner.update = counted, held_up
    metrics = [runtime.iterate() for _ in range(3)]
    runtime.close()
    assert min(during) >= 3
    assert all(np.isfinite(list(row.values())).all() for row in metrics)
    assert all(row["ratio_start"] < 1e-3 for row in metrics)
    assert max(row["batch_age"] for row in metrics) >= 1
    assert metrics[-1]["behavior_weight_mean"] == pytest.approx(1.0, abs=0.5)


def test_an_interrupt_leaves_a_checkpoint_and_no_thread(tmp_path):
    from test_controller import InterruptingProgress

    with open(os.devnull, "w") as nowhere:
        progress = InterruptingProgress("rl", 9, stream=nowhere)
        result = train(async_config(tmp_path, "ppo.iterations=9"), progress=progress)
    assert result["interrupted"]
    assert result["steps"] == 1
    assert RunFolder(tmp_path / "debug_async").steps() == [1]


def test_the_reward_of_these_tests_holds_transitions_to_be_true():
    """What the rest relies on: a reward that raises where a row is a stranger's."""

    def mixed_up(seen):
        seen.after.state[[0, 1]] = seen.after.state[[1, 0]]
        return counting_reward(seen)

    collector = make_collector(inprocess_clients(), mixed_up)
    with Streaming(collector) as streaming, pytest.raises(AssertionError, match="environment"):
        streaming.stream.take()
