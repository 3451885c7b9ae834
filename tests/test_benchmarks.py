"""The benchmarks run as a user runs them, with next to nothing to do."""

from collections import Counter

import pytest
import torch
from torch import nn

from benchmarks import (
    bench_compile,
    bench_envs,
    bench_experts,
    bench_gradient,
    bench_load,
    bench_policy,
    bench_rollout,
    bench_scale,
    bench_stages,
    bench_state,
    bench_synth,
    bench_train,
    bench_weights,
    train_jobs,
)
from benchmarks.bench_rl import COLUMNS, run, table
from benchmarks.pretended import Costs
from vlarl.model.backbone import hidden_states

SMALL = (
    "runtime.kind=inprocess",
    "env.mode=inprocess",
    "env.servers=1",
    "env.envs_per_server=2",
    "env.max_steps=8",
    "ppo.decisions_per_stream=2",
    "ppo.minibatch=4",
    "ppo.micro_batch=4",
    "evaluation.episodes=4",
)


def test_rl_benchmark_reports_what_the_iterations_measured() -> None:
    result = run(2, SMALL)
    assert result["iterations"] == 1
    assert result["decisions"] == 4
    assert 0 <= result["waiting_share"] <= 1
    assert result["iteration_seconds"] >= result["rollout_seconds"]
    assert all(name in table(result) for name in COLUMNS)


def test_gradients_agree_as_far_as_they_point_the_same_way() -> None:
    signal, noise = torch.ones(1, 8), torch.eye(8)[:4]
    assert bench_gradient.agreement(signal.repeat(4, 1))["agreement"] == pytest.approx(1)
    assert bench_gradient.agreement(noise)["agreement"] == pytest.approx(0)
    assert 0 < bench_gradient.agreement(signal + noise)["agreement"] < 1


def test_gradient_benchmark_compares_every_part_and_trace() -> None:
    result = bench_gradient.run(2, (*SMALL, "ppo.value_warmup_iterations=1"))
    assert result["windows"] == 2
    for part in bench_gradient.PARTS:
        for trace in bench_gradient.LAMBDAS:
            assert -1 <= result[part][f"lambda_{trace:g}"]["plain"]["agreement"] <= 1
    assert "gae_lambda 0.95" in bench_gradient.table(result)


def test_a_checkpoint_loads_within_little_more_than_its_size() -> None:
    result = bench_load.run("tiny")
    assert result["weight_bytes"] > 4_000_000
    assert result["beyond_bytes"] < 64 * 2**20
    assert "tiny: weights" in bench_load.table(result)


def test_policy_benchmark_accounts_for_all_of_a_decision(capsys) -> None:
    result = bench_policy.run(["tabletop-sft"], rounds=3, device="cpu", batch=2)
    assert [row["batch"] for row in result["rows"]] == [1, 2]
    for row in result["rows"]:
        assert set(row["parts"]) == set(bench_policy.PARTS)
        assert all(seconds > 0 for seconds in row["parts"].values())
        assert row["decisions_per_second"] * row["seconds"] == pytest.approx(row["batch"])
        outside = row["seconds"] - row["plain"] - row["bare"]
        assert row["overhead"] == pytest.approx(outside / row["seconds"])
    printed = capsys.readouterr().out
    assert all(line in printed for line in bench_policy.table(result).splitlines()[1:])


def test_bare_work_is_the_matrix_products_of_the_module_alone() -> None:
    layer = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).requires_grad_(False)
    recorder, outside = bench_policy._Recorder(layer), torch.randn(3, 4)
    with recorder:
        layer(outside + 1)
    shapes = [[tuple(each.shape) for each in work[1]] for work in recorder.work]
    assert shapes == [[(8,), (3, 4), (4, 8)], [(2,), (3, 8), (8, 2)]]
    weights = {parameter.data_ptr() for parameter in layer.parameters()}
    assert all(work[1][2].data_ptr() in weights for work in recorder.work)


@torch.no_grad()
def test_plain_transformers_gives_the_same_hidden_states() -> None:
    model, reason = bench_policy._model("tiny", torch.device("cpu"), 64)
    assert model is not None, reason
    inputs = model.processor(bench_policy._observations(model, 2))
    plain = bench_policy._plain(model, inputs)().last_hidden_state
    seen = inputs["attention_mask"].bool()
    ours = hidden_states(model.backbone, inputs)
    torch.testing.assert_close(plain[seen], ours[seen], atol=1e-4, rtol=1e-4)


def test_a_model_that_memory_cannot_hold_is_left_out(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench_policy, "available_memory", lambda: 2**30)
    result = bench_policy.run(["qwen_vla_4b"], device="cpu")
    assert "4b: left out: needs 14.1 GiB in bfloat16, 1.0 GiB are free" in bench_policy.table(
        result
    )
    assert "left out" in capsys.readouterr().out


@pytest.mark.soak
@pytest.mark.slow
def test_experts_are_compared_after_the_same_training(tmp_path) -> None:
    small = [word for word in bench_experts._QUICK if "steps" not in word]
    words = [*small, "supervised.steps=2", "supervised.optimizer.warmup_steps=1"]
    result = bench_experts.run(tmp_path, ("tiny-pooled",), (0,), words)
    again = bench_experts.run(tmp_path, ("tiny-pooled",), (0,), words)
    (row,), (same,) = result["runs"], again["runs"]
    assert row == same
    assert row["episodes"] == 4
    assert row["action_loss"] > 0
    assert f"success {row['success_rate']:.3f}" in bench_experts.table(result)


@pytest.mark.soak
def test_env_benchmark_measures_every_contender() -> None:
    result = bench_envs.run(seconds=0.2, repeats=2, num_envs=2)
    assert set(result["rates"]) == set(bench_envs.CONTENDERS)
    for name, modes in result["rates"].items():
        assert set(modes) == set(bench_envs.MODES)
        assert all(rate > 0 for rate in modes.values())
        assert all(len(values) == 2 for values in result["windows"][name].values())
        assert all(size > 0 for size in result["memory"][name].values())
        assert name in bench_envs.table(result)
    assert f"{result['speedup_as_used']:.1f}x" in bench_envs.table(result)


def test_speedups_are_those_over_the_better_peer() -> None:
    rates = {
        "servers": {"chunks": 60.0, "steps": 7.0},
        "gymnasium": {"chunks": 20.0, "steps": 5.0},
        "torchrl": {"chunks": 30.0, "steps": 4.0},
    }
    assert bench_envs.speedups(rates) == {"speedup_as_used": 12.0, "speedup_given_chunks": 2.0}
    assert bench_envs.speedups({"servers": rates["servers"]}) == {}


def test_a_contender_that_ends_is_named() -> None:
    with pytest.raises(RuntimeError, match="nobody"):
        bench_envs.run(seconds=0.1, repeats=1, num_envs=2, contenders=("nobody",))


def test_synthesis_benchmark_measures_each_number_of_workers() -> None:
    result = bench_synth.run(36, (1,))
    figures = result["workers"]["1"]
    assert all(value > 0 for value in figures.values())
    assert figures["hours_for_paper"] == pytest.approx(2000 / figures["per_second"])
    assert "1 workers: " in bench_synth.table(result)


@pytest.mark.soak
@pytest.mark.slow
def test_training_benchmark_sets_every_job_beside_the_plain_loop() -> None:
    result = bench_train.run(batch=8, steps=1, rounds=1)
    assert tuple(result["jobs"]) == train_jobs.JOBS
    for row in result["jobs"].values():
        assert set(row["seconds"]) == {"workers_0", "workers_2", "plain"}
        assert all(value > 0 for value in row["seconds"].values())
        assert all(0 <= share < 1 for share in row["loading_share"].values())
        assert row["of_plain"]["workers_2"] == pytest.approx(
            row["seconds"]["plain"] / row["seconds"]["workers_2"]
        )
    for rows in result["repeats"].values():
        assert rows["1"]["gain"] == 1
        assert rows["8"]["draws_per_second"] == pytest.approx(8 * 8 / rows["8"]["seconds"])
    assert all(job in bench_train.table(result) for job in train_jobs.JOBS)


@pytest.mark.soak
@pytest.mark.slow
def test_weights_benchmark_brings_every_byte_to_the_other_process() -> None:
    result = bench_weights.run(250_000, rounds=2, shard_bytes=2**17)
    assert (result["bytes"], result["shards"]) == (500_000, 4)
    assert result["whole"]
    for name in ("copy", *bench_weights.STEPS):
        assert result["seconds"][name] >= result["fastest"][name] > 0
        assert result["gb_per_second"][name] * result["fastest"][name] == pytest.approx(5e-4)
        assert name in bench_weights.table(result)


def test_the_plan_of_weights_adds_up_the_steps_of_each_way() -> None:
    paper = bench_weights.plan(dict.fromkeys(("copy", *bench_weights.STEPS), 11.4))
    assert paper["bytes"] == 11.4e9
    assert paper["links"]["100 Gb/s"] == pytest.approx(0.912)
    assert paper["measured"]["put"] == pytest.approx(1)
    there = paper["ways"]["other node, 100 Gb/s"]
    here = paper["ways"]["one node"]
    assert there["added"] - here["added"] == pytest.approx(0.912)
    assert there["slowest"] == here["slowest"] == pytest.approx(1)


@pytest.mark.soak
def test_the_plain_loop_computes_as_much_as_the_trainer(tmp_path) -> None:
    """The same rows, prompts and steps; pixels and actions are others."""
    job = train_jobs.make(tmp_path, "mixture", 8)
    plain = bench_train._Plain(job, bench_train._WARM + 1)
    batch = job.mixture.batch(bench_train._WARM)
    (parts,) = plain._parts[bench_train._WARM :]
    rows = sum(len(part.clean) for part in parts if part.clean is not None)
    assert rows == sum(len(chunks.actions) for chunks in batch.chunks)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert plain.tokens == sum(part.tokens for part in parts)


@pytest.mark.soak
def test_the_compiled_expert_gives_the_same_numbers() -> None:
    (rows,) = bench_compile.run(quick=True)["sizes"].values()
    assert set(rows) == {"expert, rollout"}
    assert rows["expert, rollout"]["difference"] < 1e-4


@pytest.mark.soak
@pytest.mark.slow
def test_stages_benchmark_plays_chains_and_keeps_what_is_there(tmp_path, monkeypatch) -> None:
    rows = {
        "new": bench_stages.Row(t2a=None),
        "whole": bench_stages.Row(cpt=()),
        "expert": bench_stages.Row(cpt=(), fresh_backbone=True),
        "images": bench_stages.Row(t2a=None, images=()),
    }
    monkeypatch.setattr(bench_stages, "TABLES", {"some": rows})
    result = bench_stages.run(tmp_path, ("some",), quick=True)
    assert {row["episodes"] for row in result["tables"]["some"].values()} == {4}
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    # Both chains with continued pretraining share their first two stages.
    stages = Counter(path.relative_to(tmp_path).parts[0].split("_")[0] for path in made)
    assert stages == {"t2a": 1, "cpt": 1, "images": 1, "sft": 4}
    assert bench_stages.run(tmp_path, ("some",), quick=True) == result
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert again == made
    assert "| expert |" in bench_stages.table(result)


@pytest.mark.slow
def test_state_benchmark_trains_and_evaluates_each_mode_and_keeps_what_is_there(tmp_path) -> None:
    modes = ("none", "dit")
    result = bench_state.run(tmp_path, modes, overrides=bench_state.QUICK)
    assert [row["mode"] for row in result["runs"]] == list(modes)
    assert all(row["episodes"] == 4 for row in result["runs"])
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert bench_state.run(tmp_path, modes, overrides=bench_state.QUICK) == result
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert again == made
    assert "dit" in bench_state.table(result)


def test_rollout_benchmark_measures_every_contender():
    results = bench_rollout.run(environments=2, chunk_seconds=0.02, decisions=2)
    assert set(results) == set(bench_rollout.TAILS)
    for contenders in results.values():
        assert set(contenders) == {"in step", *bench_rollout.ROLLOUTS}
        for found in contenders.values():
            assert 0 <= found["waiting_share"] <= 1
            assert found["of_bound"] > 0
    assert "heavy-tailed" in bench_rollout.table(results)


def test_simulated_time_goes_by_durations_alone():
    """Four servers simulate at once; a single policy and collector serve them one by one."""
    free = bench_scale.simulated(4, 1.0, 5, Costs(), policy_seconds=0.0)
    assert free.seconds == pytest.approx(5.0)
    assert free.decisions == 4 * 5
    assert free.seconds_waiting_simulation == pytest.approx(5.0)
    alone = bench_scale.simulated(1, 1.0, 5, Costs(server=0.25, answer=0.5), policy_seconds=0.25)
    assert alone.seconds == pytest.approx(5 * 2.0)
    assert alone.seconds_policy == pytest.approx(5 * 0.25)
    # Ten servers at half a second of the policy each: it never waits, after the first chunks.
    full = bench_scale.simulated(10, 1.0, 8, Costs(), policy_seconds=0.5)
    assert full.seconds_policy == pytest.approx(10 * 8 * 0.5)
    assert full.seconds - full.seconds_policy < 2.0


def test_scale_benchmark_sets_the_simulation_beside_real_servers():
    points, costs, policy = bench_scale.throughput((1, 2), 0.05, 2)
    assert [point.servers for point in points] == [1, 2]
    assert points[1].rate > points[0].rate
    assert policy >= bench_scale.POLICY_SECONDS
    assert costs.answer > 0
    many = bench_scale.many_learners(2, 2, 2, 3, costs)
    assert many["environments"] == 8
    assert many["decisions"] == 2 * 2 * 2 * 3
    assert many["iteration_seconds"] > many["rollout_seconds"] > 3
    assert 0 <= many["waiting_for_the_slowest_worker"] < 1
