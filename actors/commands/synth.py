"""`vlarl synth`: language-action trajectories, their audit, a picture sheet and an export."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation, hint, whole_number
from vlarl.errors import UserError

SETTINGS = {
    "out": "folder (t2a, export) or PNG file (sheet) to write",
    "robots": "t2a: such as ur5e,xarm7 (all); sheet: the same",
    "templates": "t2a: such as push,swap (all)",
    "trajectories": "t2a: in all, spread evenly over robots and templates (36864)",
    "seed": "t2a: of all that is drawn (0); audit and sheet: of the sample",
    "workers": "t2a: processes (2)",
    "samples": "audit: trajectories to check (1000)",
    "count": "sheet: pictures (24)",
}
_TAKES = {
    "t2a": ("out", "robots", "templates", "trajectories", "seed", "workers"),
    "audit": ("samples", "seed"),
    "sheet": ("out", "robots", "count", "seed"),
    "export": ("out",),
}


def run(invocation: Invocation) -> dict[str, Any]:
    """Do what the first argument says."""
    action, *rest = invocation.arguments
    if action not in _ACTIONS:
        raise UserError(f"synth: {action}: no such action. {hint(action, _ACTIONS)}")
    for key in invocation.settings:
        if key not in _TAKES[action]:
            raise UserError(f"synth {action}: {key}: no such setting. {hint(key, _TAKES[action])}")
    if action == "t2a" and rest:
        raise UserError(f"synth t2a takes no argument; {rest[0]!r} is given. Use out=DIR.")
    if action != "t2a" and not rest:
        raise UserError(f"synth {action} needs DIR, a folder that `vlarl synth t2a` wrote.")
    return _ACTIONS[action](rest[0] if rest else "", invocation)


def _t2a(_folder: str, invocation: Invocation) -> dict[str, Any]:
    from actors.synthesis.pool import make_shards
    from vlarl.progress import Progress
    from vlarl.synthesis.arm import arm_names, load_arm
    from vlarl.synthesis.dataset import Recipe, open_folder, table
    from vlarl.synthesis.scene import TEMPLATES

    settings = invocation.settings
    folder = Path(_out(invocation, "t2a", "DIR"))
    recipe = Recipe(
        seed=whole_number(settings, "seed", 0, least=0),
        robots=_names(settings.get("robots", ""), arm_names(), "robot"),
        templates=_names(settings.get("templates", ""), list(TEMPLATES), "template"),
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


def _audit(folder: str, invocation: Invocation) -> dict[str, Any]:
    from actors.synthesis.audit import audit
    from vlarl.progress import Progress
    from vlarl.synthesis.dataset import SynthesisDataset

    samples = whole_number(invocation.settings, "samples", 1000)
    seed = whole_number(invocation.settings, "seed", 0, least=0)
    dataset = SynthesisDataset(folder)
    with Progress("auditing", min(samples, len(dataset)), "trajectories") as progress:
        report = audit(dataset, samples, seed, progress.reach)
    print(report.text())
    return report.to_dict()


def _sheet(folder: str, invocation: Invocation) -> dict[str, Any]:
    from vlarl.synthesis.dataset import SynthesisDataset
    from vlarl.synthesis.sheet import write_sheet

    out = Path(_out(invocation, "sheet", "FILE.png"))
    if out.suffix != ".png":
        raise UserError(f"out = {str(out)!r}: the sheet is a PNG file: name it FILE.png.")
    count = whole_number(invocation.settings, "count", 24)
    seed = whole_number(invocation.settings, "seed", 0, least=0)
    dataset = SynthesisDataset(folder)
    robots = _names(invocation.settings.get("robots", ""), dataset.robots, "robot")
    shown = write_sheet(dataset, out, count, seed, robots)
    print(f"{shown} trajectories drawn in {out}")
    return {"pictures": shown, "out": str(out)}


def _export(folder: str, invocation: Invocation) -> dict[str, Any]:
    from vlarl.progress import Progress
    from vlarl.synthesis.dataset import SynthesisDataset
    from vlarl.synthesis.export import export

    out = Path(_out(invocation, "export", "DIR"))
    dataset = SynthesisDataset(folder)
    with Progress("exporting", len(dataset), "trajectories") as progress:
        written = export(dataset, out, progress.advance)
    for name, episodes in written.items():
        print(f"{name}: {episodes} episodes")
    return {"datasets": written, "out": str(out)}


def _out(invocation: Invocation, action: str, what: str) -> str:
    out = invocation.settings.get("out", "")
    if not out:
        raise UserError(f"synth {action} needs out={what}.")
    return out


def _names(text: str, allowed: list[str], what: str) -> tuple[str, ...]:
    """Names apart by commas, in the allowed ones' order; all of them if none is given."""
    given = [name for name in text.split(",") if name] or allowed
    for name in given:
        if name not in allowed:
            raise UserError(f"{what} {name!r} is unknown. {hint(name, tuple(allowed))}")
    return tuple(name for name in allowed if name in given)


def _print_table(cells: dict[str, dict[str, dict[str, float]]]) -> None:
    templates = list(dict.fromkeys(template for row in cells.values() for template in row))
    width = max((len(template) for template in templates), default=0)
    print(" " * 14 + "".join(f"{template:>{width + 2}}" for template in templates))
    for robot, row in cells.items():
        counts = (int(row.get(template, {}).get("trajectories", 0)) for template in templates)
        print(f"{robot:<14}" + "".join(f"{count:>{width + 2}}" for count in counts))


_ACTIONS: dict[str, Callable[[str, Invocation], dict[str, Any]]] = {
    "t2a": _t2a,
    "audit": _audit,
    "sheet": _sheet,
    "export": _export,
}

COMMAND = Command(
    usage="synth ACTION [DIR] [key=value ...]",
    arguments=("ACTION",),
    optional=("DIR",),
    settings=SETTINGS,
    details=(
        "Trajectories of arms with the instructions they carry out, without physics or images.\n"
        "  t2a     synthesize into out=DIR; the same settings continue what was stopped\n"
        "  audit   check a sample of DIR by other means than those that made it\n"
        "  sheet   draw a sample of DIR\n"
        "  export  write DIR as LeRobot v3.0 datasets, one for each robot"
    ),
    example="vlarl synth t2a out=datasets/t2a trajectories=36864",
    run=run,
)
