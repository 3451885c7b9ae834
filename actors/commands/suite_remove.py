"""`vlarl suite remove`: deletes the virtual environment of a suite."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation


def run(invocation: Invocation) -> dict[str, Any]:
    """Delete them; one that is not there is no mistake."""
    from actors.suite_environments import removable, remove

    folders = {name: removable(name) for name in invocation.arguments}
    for name, folder in folders.items():
        done = remove(name)
        print(f"{name}: {'removed' if done else 'not installed: nothing to remove in'} {folder}")
    return {"removed": {name: str(folder) for name, folder in folders.items()}}


COMMAND = Command(
    usage="suite remove NAME...",
    arguments=("NAME",),
    several=True,
    settings={},
    details="Deletes the folder of the environment, without asking. Datasets and runs stay.",
    example="vlarl suite remove metaworld",
    run=run,
)
