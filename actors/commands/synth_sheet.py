"""`vlarl synth sheet`: pictures of some trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.commands.command import Command, Invocation, chosen, needed, whole_number
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """Draw a sample."""
    from vlarl.synthesis.dataset import SynthesisDataset
    from vlarl.synthesis.sheet import write_sheet

    out = Path(needed(invocation, "synth sheet", "out", "FILE.png"))
    if out.suffix != ".png":
        raise UserError(f"out = {str(out)!r}: the sheet is a PNG file: name it FILE.png.")
    count = whole_number(invocation.settings, "count", 24)
    seed = whole_number(invocation.settings, "seed", 0, least=0)
    dataset = SynthesisDataset(invocation.arguments[0])
    robots = chosen(invocation.settings.get("robots", ""), dataset.robots, "robot")
    shown = write_sheet(dataset, out, count, seed, robots)
    print(f"{shown} trajectories drawn in {out}")
    return {"pictures": shown, "out": str(out)}


COMMAND = Command(
    usage="synth sheet DIR out=FILE.png [key=value ...]",
    arguments=("DIR",),
    settings={
        "out": "PNG file to write",
        "robots": "such as ur5e,xarm7 (all)",
        "count": "pictures (24)",
        "seed": "of the sample (0)",
    },
    details="Each picture is a trajectory: its arm, the path of its gripper, its instruction.",
    example="vlarl synth sheet datasets/t2a out=sheet.png",
    run=run,
)
