"""The benchmarks of RL run as a user runs them, with next to nothing to do."""

import pytest
import torch

from benchmarks import bench_gradient, bench_load
from benchmarks.bench_rl import COLUMNS, run, table

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
