"""The benchmark of RL runs as a user runs it, with next to nothing to do."""

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
