"""`vlarl data`: what to do with a dataset; each subcommand is a file `data_*.py` of its own."""

from __future__ import annotations

import importlib
from typing import Any

from actors.commands.command import Command, Invocation, hint
from vlarl.errors import UserError

SUBCOMMANDS = {
    "hands": ("data_hands", "fit eigengrasps to recorded human hands, with what they lose"),
}
"""Name -> module in this folder, which holds a `COMMAND`, and one line of help."""


def run(invocation: Invocation) -> dict[str, Any]:
    """Hand the rest of the line to the subcommand."""
    name, *rest = invocation.arguments
    if name not in SUBCOMMANDS:
        raise UserError(f"data: {name}: no such subcommand. {hint(name, SUBCOMMANDS)}")
    module = importlib.import_module(f"actors.commands.{SUBCOMMANDS[name][0]}")
    command: Command = module.COMMAND
    passed = Invocation(tuple(rest), invocation.settings)
    command.check(f"data {name}", passed)
    return command.run(passed)


COMMAND = Command(
    usage="data SUBCOMMAND DATASET [key=value ...]",
    arguments=("SUBCOMMAND", "DATASET"),
    details="\n".join(f"  {name:<10} {text}" for name, (_, text) in SUBCOMMANDS.items()),
    example="vlarl data hands datasets/hands out=datasets/hands.json",
    run=run,
)
