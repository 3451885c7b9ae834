"""Several learners in Ray actors: they learn, another number of them goes on, and one may die."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.controller import train
from actors.runtime import open_runtime
from vlarl.config.load import load_config
from vlarl.config.schema import RunConfig
from vlarl.errors import ProcessDied
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


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["full", pytest.param("none", marks=pytest.mark.soak)])
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


@pytest.mark.slow
def test_a_learner_that_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with open_runtime(spread(tmp_path)) as runtime:
        runtime.iterate()
        ray.kill(runtime._learners.actors[1])
        with pytest.raises(ProcessDied, match="learner 1 of 2"):
            runtime.iterate()


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
