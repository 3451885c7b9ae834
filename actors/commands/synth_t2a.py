"""`vlarl synth t2a`: trajectories of arms with the instructions they carry out (paper 3.2.3)."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation, chosen, needed, whole_number


def run(invocation: Invocation) -> dict[str, Any]:
    """Make what is not there yet."""
    from actors.synthesis.pool import make_shards
    from vlarl.progress import Progress
    from vlarl.synthesis.arm import arm_names, load_arm
    from vlarl.synthesis.dataset import Recipe, open_folder, table
    from vlarl.synthesis.scene import TEMPLATES

    settings = invocation.settings
    folder = Path(needed(invocation, "synth t2a", "out", "DIR"))
    recipe = Recipe(
        seed=whole_number(settings, "seed", 0, least=0),
        robots=chosen(settings.get("robots", ""), arm_names(), "robot"),
        templates=chosen(settings.get("templates", ""), list(TEMPLATES), "template"),
        trajectories=whole_number(settings, "trajectories", 36864),
    )
    workers = whole_number(settings, "workers", 2)
    for robot in recipe.robots:
        load_arm(robot)
    entries = open_folder(folder, recipe)
    jobs = [job for job in recipe.jobs() if job.name not in entries]
    made = cpu_seconds = 0.0
    started = time.monotonic()
    with (
        Progress("synthesizing", sum(job.count for job in jobs), "trajectories") as progress,
        closing(make_shards(folder, recipe.seed, jobs, workers)) as shards,
    ):
        for shard in shards:
            entries[shard.entry.name] = shard.entry
            made += shard.entry.trajectories
            cpu_seconds += shard.cpu_seconds
            progress.advance(shard.entry.trajectories)
    seconds = max(1e-9, time.monotonic() - started)
    cells = table(sorted(entries.values(), key=lambda entry: entry.name))
    result = {
        "trajectories": sum(entry.trajectories for entry in entries.values()),
        "hours": sum(cell["hours"] for row in cells.values() for cell in row.values()),
        "bytes": sum(entry.bytes for entry in entries.values()),
        "robots": cells,
        "made": int(made),
        "per_second": made / seconds,
        "cpu_ms": 1e3 * cpu_seconds / made if made else 0.0,
        "out": str(folder),
    }
    _print_table(cells)
    print(f"{result['trajectories']} trajectories, {result['hours']:.1f} hours, in {folder}")
    print(
        f"made {int(made)} now: {result['per_second']:.0f} a second with {workers} workers, "
        f"{result['cpu_ms']:.2f} ms of CPU time each"
    )
    return result


def _print_table(cells: dict[str, dict[str, dict[str, float]]]) -> None:
    templates = list(dict.fromkeys(template for row in cells.values() for template in row))
    width = max((len(template) for template in templates), default=0)
    print(" " * 14 + "".join(f"{template:>{width + 2}}" for template in templates))
    for robot, row in cells.items():
        counts = (int(row.get(template, {}).get("trajectories", 0)) for template in templates)
        print(f"{robot:<14}" + "".join(f"{count:>{width + 2}}" for count in counts))


COMMAND = Command(
    usage="synth t2a out=DIR [key=value ...]",
    settings={
        "out": "folder to write; with the same settings, what was stopped goes on",
        "robots": "such as ur5e,xarm7 (all)",
        "templates": "such as push,swap (all)",
        "trajectories": "in all, spread evenly over robots and templates (36864)",
        "seed": "of all that is drawn (0)",
        "workers": "processes (2)",
    },
    details="Trajectories of arms with the instructions they carry out, without physics or images.",
    example="vlarl synth t2a out=datasets/t2a trajectories=36864",
    run=run,
)
