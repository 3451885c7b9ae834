"""`vlarl key`: a new key for env servers that listen beyond this machine."""

from __future__ import annotations

from typing import Any

from actors.commands.command import Command, Invocation


def run(invocation: Invocation) -> dict[str, Any]:
    """Write the key."""
    from envservers.keys import write_new_key

    path = invocation.arguments[0]
    write_new_key(path)
    print(f"{path}: give it to the env servers (key={path}) and to the run (env.key_file={path})")
    return {"key": path}


COMMAND = Command(
    usage="key FILE",
    arguments=("FILE",),
    settings={},
    details=(
        "Writes a new key to FILE, which must not exist. Whoever has the file may serve\n"
        "environments and connect to servers: copy it by a safe way, and keep it to yourself."
    ),
    example="vlarl key servers.key",
    run=run,
)
