"""`vlarl suite list`: every suite, whether it can be used, and what to do if not."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation


def run(_invocation: Invocation) -> dict[str, Any]:
    """Look at every environment; nothing is changed."""
    from actors.commands.table import print_table
    from actors.suite_environments import states
    from envservers import environments

    found = states()
    heads = ("SUITE", "STATE", "DISK", "WHAT")
    rows = [
        (state.name, state.state, f"{state.megabytes} MB" if state.megabytes else "", state.text)
        for state in found
    ]
    print_table([heads, *rows])
    print(f"\nenvironments are in {environments.home()} (VLARL_SUITES)")
    return {
        "home": str(environments.home()),
        "suites": {state.name: state._asdict() for state in found},
    }


COMMAND = Command(
    usage="suite list",
    settings={},
    details=(
        "  built in      runs in vlarl's own environment\n"
        "  ready         installed, with the versions that this vlarl needs\n"
        "  incomplete    installed, but for scenes that are fetched by hand: the command is named\n"
        "  missing       can be installed: the command is named\n"
        "  outdated      installed with other versions\n"
        "  broken        its Python or packages are not as they were installed\n"
        "  elsewhere     cannot be installed from a package index: what it takes is named"
    ),
    example="vlarl suite list --json",
    run=run,
)
