"""How fast `vlarl synth t2a` is with one worker process and with two.

    python -m benchmarks.bench_synth [--quick] [--json FILE]

All robots and templates, full shards, into a temporary folder (about 0.6 GB). The rate depends on
what else the machine does; CPU time of the workers for each kept trajectory does so much less. The
peak of a worker's resident memory is read while it works. Expected: at least 300 trajectories a
second with two workers on two idle cores, which is at most 6.6 ms of CPU time each.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.synthesis.pool import make_shards
from vlarl.synthesis.arm import arm_names
from vlarl.synthesis.dataset import SHARD_SIZE, Recipe, open_folder
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.scene import TEMPLATES

PAPER = 7_200_000
"""Trajectories of the paper's dataset (section 3.2.3)."""


def run(trajectories: int = 36 * SHARD_SIZE, workers: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    """Figures for each number of workers."""
    recipe = Recipe(0, tuple(arm_names()), TEMPLATES, trajectories)
    return {"trajectories": trajectories, "workers": {str(n): _measure(recipe, n) for n in workers}}


def _measure(recipe: Recipe, workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        open_folder(folder, recipe)
        started = time.perf_counter()
        made = list(make_shards(folder, recipe.seed, recipe.jobs(), workers))
        seconds = time.perf_counter() - started
    count = sum(shard.entry.trajectories for shard in made)
    rate = count / seconds
    cpu = sum(shard.cpu_seconds for shard in made) / count
    return {
        "per_second": rate,
        "cpu_ms": 1e3 * cpu,
        "hours_for_paper": PAPER / rate / 3600,
        "cpu_hours_for_paper": PAPER * cpu / 3600,
        "kilobytes": sum(shard.entry.bytes for shard in made) / count / 1e3,
        "seconds_each": sum(shard.entry.steps for shard in made) / count / RATE,
        # Of the largest child so far, in KiB on Linux.
        "worker_megabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def table(result: dict[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"{result['trajectories']} trajectories"]
    for workers, each in result["workers"].items():
        lines.append(
            f"{workers} workers: {each['per_second']:.0f} a second, {each['cpu_ms']:.2f} ms of "
            f"CPU time each, {each['worker_megabytes']:.0f} MB a worker"
        )
        lines.append(
            f"  each {each['seconds_each']:.1f} s and {each['kilobytes']:.1f} kB; 7.2 million: "
            f"{each['hours_for_paper']:.1f} hours, "
            f"{each['cpu_hours_for_paper']:.1f} hours of CPU time"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trajectories")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    result = run(144) if arguments.quick else run()
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
