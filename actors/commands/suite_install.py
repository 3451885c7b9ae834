"""`vlarl suite install`: the virtual environment of a suite, made with its pins."""

from __future__ import annotations

import sys
from typing import Any

from actors.commands.command import Command, Invocation
from vlarl.errors import UserError


def run(invocation: Invocation) -> dict[str, Any]:
    """Install one after the other; one that fails does not keep back the others."""
    from actors.suite_environments import InstallFailed, check_name, install, starts
    from envservers import environments

    force = invocation.settings.get("force", "false")
    if force not in ("true", "false"):
        raise UserError(f"force = {force!r}: must be true or false.")
    wanted = [name for name in invocation.arguments if check_name(name)]
    failed: dict[str, str] = {}
    for name in wanted:
        if force == "false" and not environments.problem(name):
            print(f"{name} is installed in {environments.folder(name)}; force=true makes it anew")
            continue
        try:
            made = install(name, invocation.settings.get("python", ""))
            print(f"{name}: {len(made.packages)} packages, {made.megabytes} MB in ", end="")
            print(environments.folder(name))
            for suite, seconds in starts(name).items():
                print(f"{suite}: starts, resets and steps ({seconds:.1f} s)")
        except InstallFailed as error:
            failed[name] = str(error)
            print(f"vlarl: {error}", file=sys.stderr)
    return {
        "installed": {
            name: str(environments.folder(name)) for name in wanted if name not in failed
        },
        "failed": failed,
    }


COMMAND = Command(
    usage="suite install NAME... [force=true] [python=FILE]",
    arguments=("NAME",),
    several=True,
    settings={
        "force": "make one anew that is ready (false); outdated ones are made anew in any case",
        "python": "interpreter to make it with (the one that runs vlarl)",
    },
    details=(
        "Makes a virtual environment with the pins of the suite NAME, beside vlarl's own, and\n"
        "tries the suite. Env servers of the suite then run there by themselves.\n"
        "VLARL_SUITES=DIR puts it elsewhere than ~/.cache/vlarl/suites."
    ),
    example="vlarl suite install metaworld",
    run=run,
)
