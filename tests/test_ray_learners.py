"""Several learners in Ray actors: they learn, another number of them goes on, and one may die."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from actors.controller import train
from actors.ray_learners import Learners, fetch_all
from actors.runtime import open_runtime
from vlarl.config.load import load_config
from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError, ProcessDied
from vlarl.runs import RunFolder

ray = pytest.importorskip("ray")

CONFIG = Path(__file__).parents[1] / "configs/rl/debug.yaml"


def spread(tmp_path: Path, *overrides: str) -> RunConfig:
    """The debug config, with two learners and a rollout worker in actors of their own."""
    actors = ["runtime.kind=ray", "env.mode=spawn", "runtime.learners=2"]
    return load_config(CONFIG, [f"output={tmp_path}", "name=run", *actors, *overrides])


@pytest.mark.soak
@pytest.mark.slow
def test_two_learners_of_a_divided_model_train_and_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    result = train(spread(tmp_path, "runtime.shard=full"))
    run = RunFolder(tmp_path / "run")
    rows = run.metrics()
    assert result["steps"] == len(rows) == 2
    for row in rows:
        assert row["decisions"] == 16
        # Workers act with the weights that were gathered: ratios begin at one.
        assert row["batch_age"] == 0
        assert row.get("ratio_start", 0.0) < 1e-3
    more = ["runtime.learners=1", "resume=auto", "ppo.iterations=3"]
    assert train(spread(tmp_path, *more))["steps"] == 3
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("shard", ["full", "none"])
def test_two_learners_take_what_a_rollout_that_goes_on_hands_over(tmp_path, monkeypatch, shard):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    words = ["runtime.kind=ray", "env.mode=spawn", "runtime.learners=2", f"runtime.shard={shard}"]
    words += [f"output={tmp_path}", "ppo.iterations=3", "evaluation.every=2"]
    result = train(load_config(CONFIG.with_name("debug_async.yaml"), words))
    rows = RunFolder(tmp_path / "debug_async").metrics()
    assert result["steps"] == len(rows) == 3
    for row in rows:
        assert row["decisions"] >= 16
        assert 0 <= row["batch_age_mean"] <= row["batch_age"]
        assert row["worker_restarts"] == row["learner_restarts"] == 0
        assert row["server_memory_bytes"] > 0
        # The learners' own density, of what was decided with weights that were gathered.
        assert row.get("ratio_start", 0.0) < 1e-3
        assert 0 < row.get("behavior_weight_mean", 1.0) < 2
    assert "eval_success_rate" in rows[1]


@pytest.mark.soak
@pytest.mark.slow
def test_a_learner_that_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with open_runtime(spread(tmp_path)) as runtime:
        runtime.iterate()
        ray.kill(runtime._learners.actors[1])
        with pytest.raises(ProcessDied, match="learner 1 of 2"):
            runtime.iterate()


@pytest.fixture
def members():
    small = {"num_cpus": 2, "object_store_memory": 10**8}
    ray.init(address="local", **small, include_dashboard=False, log_to_driver=False)

    # In here, so that Ray sends the class itself: its processes cannot import this file.
    class Member:
        """One of a group: fails as it is told, or waits for the others without end."""

        def answer(self, error: Exception | None) -> None:
            if error is not None:
                raise error
            time.sleep(3600)

    yield lambda: [ray.remote(Member).remote() for _ in range(2)]
    ray.shutdown()


@pytest.mark.slow
def test_what_a_member_reports_before_anybodys_death_is_seen_is_the_groups_death(
    members, monkeypatch
):
    monkeypatch.setattr("actors.ray_learners._GRACE_SECONDS", 0.1)
    lost = RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    calls = [lost, None], [None, lost]
    for rank, errors in enumerate(calls):
        both = members()
        answers = [m.answer.remote(e) for m, e in zip(both, errors, strict=True)]
        with pytest.raises(ProcessDied, match=rf"(?s)learner {rank} of 2 failed.*closed by peer"):
            fetch_all(answers)
        for member in both:
            ray.kill(member)
    # A mistake of the user's, and a failure of one that learns alone, are what they are.
    both = members()
    with pytest.raises(ConfigError, match="no such thing"):
        fetch_all([m.answer.remote(ConfigError("no such thing")) for m in both])
    with pytest.raises(RuntimeError, match="closed by peer") as found:
        fetch_all([both[0].answer.remote(lost)])
    assert not isinstance(found.value, ProcessDied)


def process_of(actor) -> int:
    """Its process id, while it lives."""
    from ray._private.state import actors

    return int(actors(actor._actor_id.hex())["Pid"])


@pytest.mark.soak
@pytest.mark.slow
def test_a_member_killed_at_any_time_of_an_update_is_survived(tmp_path, monkeypatch):
    """SIGKILL, four times: of either one, sooner and later in a long update."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    deaths = [(1, 0.02), (0, 0.1), (1, 0.3), (0, 0.6)]
    left, call = list(deaths), Learners.all
    hits = []

    def killing(group, method, *arguments):
        if method != "update" or not left:
            return call(group, method, *arguments)
        rank, delay = left.pop(0)
        pid = process_of(group.actors[rank])

        def kill():
            hits.append(updating.is_set())
            os.kill(pid, signal.SIGKILL)

        updating = threading.Event()
        timer = threading.Timer(delay, kill)
        updating.set()
        timer.start()
        try:
            return call(group, method, *arguments)
        finally:
            updating.clear()
            timer.join()

    monkeypatch.setattr(Learners, "all", killing)
    # Forty epochs of the policy, not of the value head alone: those are over before the last death.
    every = ["ppo.value_warmup_iterations=0", "ppo.target_kl=0"]
    longer = ["ppo.epochs=40", "ppo.iterations=2", f"runtime.restarts={len(deaths)}", *every]
    assert train(spread(tmp_path, *longer))["steps"] == 2
    rows = RunFolder(tmp_path / "run").metrics()
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[-1]["learner_restarts"] == len(deaths)
    assert hits == [True] * len(deaths)


@pytest.mark.soak
@pytest.mark.slow
def test_a_group_of_which_one_dies_begins_again_as_a_whole(tmp_path, monkeypatch):
    from actors.ray_runtime import RayRuntime

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    iterate, calls = RayRuntime.iterate, []

    def killing(runtime):
        calls.append(runtime)
        if len(calls) == 2:
            ray.kill(runtime._learners.actors[1])
        return iterate(runtime)

    monkeypatch.setattr(RayRuntime, "iterate", killing)
    assert train(spread(tmp_path, "checkpoint_every=1"))["steps"] == 2
    rows = RunFolder(tmp_path / "run").metrics()
    assert [(row["step"], row["learner_restarts"]) for row in rows] == [(1, 0), (2, 1)]
    # The second iteration was begun twice, by two groups.
    assert len(calls) == 3
    assert calls[2] is not calls[0]
