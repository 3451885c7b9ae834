"""Commands that hand the rest of the line to a subcommand, a file of its own in this folder."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from actors.commands.command import Command, Invocation, hint
from vlarl.errors import UserError


def dispatcher(
    name: str,
    takes: tuple[str, ...],
    subcommands: Mapping[str, tuple[str, str]],
    example: str,
    several: bool = False,
) -> Command:
    """The command `vlarl NAME SUBCOMMAND ...`.

    Args:
        name: of the command.
        takes: names of what every subcommand takes after its own.
        subcommands: name -> module in this folder, which holds a `COMMAND`, and one line of help.
        example: for `--help`.
        several: whether subcommands may take any number of arguments.
    """

    def load(subcommand: str) -> Command:
        if subcommand not in subcommands:
            raise UserError(
                f"{name}: {subcommand}: no such subcommand. {hint(subcommand, subcommands)}"
            )
        module = importlib.import_module(f"actors.commands.{subcommands[subcommand][0]}")
        command: Command = module.COMMAND
        return command

    def run(invocation: Invocation) -> dict[str, Any]:
        first, *rest = invocation.arguments
        command = load(first)
        passed = Invocation(tuple(rest), invocation.settings)
        command.check(f"{name} {first}", passed)
        return command.run(passed)

    return Command(
        usage=" ".join((name, "SUBCOMMAND", *takes, "[key=value ...]")),
        arguments=("SUBCOMMAND", *takes),
        optional=() if takes else ("DIR",),
        several=several,
        details="\n".join(f"  {key:<10} {text}" for key, (_, text) in subcommands.items()),
        example=example,
        run=run,
        subcommand=load,
    )
