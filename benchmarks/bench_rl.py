"""Where the time of an RL iteration goes, and how much of it everything waits for simulation.

    python -m benchmarks.bench_rl [--quick] [--json FILE]

Runs `configs/rl/tabletop.yaml` for some iterations as a user would (Ray, spawned env servers, the
shipped checkpoint) in a temporary folder, and reports medians over the iterations after the first,
which is a warm-up. Expected figures stand in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from actors.controller import train
from vlarl.config.load import load_config
from vlarl.runs import read_metrics

COLUMNS = (
    "iteration_seconds",
    "rollout_seconds",
    "policy_seconds",
    "waiting_seconds",
    "waiting_share",
    "decisions_per_second",
    "env_steps_per_second",
)


def run(iterations: int = 6, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Medians of `COLUMNS` over iterations 2 to `iterations`, and the decisions of one."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            "configs/rl/tabletop.yaml",
            [
                f"ppo.iterations={iterations}",
                "ppo.value_warmup_iterations=0",
                "evaluation.every=0",
                "evaluation.episodes=8",
                "evaluation.videos=0",
                f"output={folder}",
                "name=bench",
                *overrides,
            ],
        )
        train(config)
        rows = [
            row for row in read_metrics(Path(folder) / "bench" / "metrics.jsonl") if row["step"] > 1
        ]
    medians = {name: statistics.median(row[name] for row in rows) for name in COLUMNS}
    return {"iterations": len(rows), "decisions": rows[-1]["decisions"], **medians}


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{name:22s} {result[name]:10.3f}" for name in COLUMNS]
    return "\n".join([f"medians of {result['iterations']} iterations", *lines])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two iterations of few decisions")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    quick = ("ppo.decisions_per_stream=8", "ppo.minibatch=64", "ppo.micro_batch=64")
    result = run(2, quick) if arguments.quick else run()
    print(table(result))
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text)


if __name__ == "__main__":
    main()
