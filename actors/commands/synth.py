"""`vlarl synth`: data made from rules and simulators; each subcommand is a file `synth_*.py`."""

from __future__ import annotations

import importlib
from typing import Any

from actors.commands.command import Command, Invocation, hint
from vlarl.errors import UserError

SUBCOMMANDS = {
    "drive": ("synth_drive", "driving-like trajectories of waypoints, with what the car sees"),
    "vl": ("synth_vl", "conversations about random tables: captions, boxes, relations, VQA"),
    "vla": ("synth_vla", "motion programs on random tables, whole and cut into subtasks"),
}
"""Name -> module in this folder, which holds a `COMMAND`, and one line of help."""


def run(invocation: Invocation) -> dict[str, Any]:
    """Hand the rest of the line to the subcommand."""
    name, *rest = invocation.arguments
    if name not in SUBCOMMANDS:
        raise UserError(f"synth: {name}: no such subcommand. {hint(name, SUBCOMMANDS)}")
    module = importlib.import_module(f"actors.commands.{SUBCOMMANDS[name][0]}")
    command: Command = module.COMMAND
    passed = Invocation(tuple(rest), invocation.settings)
    command.check(f"synth {name}", passed)
    return command.run(passed)


COMMAND = Command(
    usage="synth SUBCOMMAND out=DIR [key=value ...]",
    arguments=("SUBCOMMAND",),
    details="\n".join(f"  {name:<10} {text}" for name, (_, text) in SUBCOMMANDS.items()),
    example="vlarl synth vl out=datasets/tables samples=1000",
    run=run,
)
