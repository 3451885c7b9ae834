"""Addresses of env servers: `tcp://HOST:PORT`, `ipc://PATH`, or `@FILE` that holds one of these.

A server that may come back at another port keeps its present address in a file. Which addresses
strangers reach is said here too.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from vlarl.errors import EnvServerDied


def present_address(entry: str) -> str:
    """`entry` itself, or of `@FILE` what the file says now.

    Raises:
        EnvServerDied: if there is no such file, or no address in it: no server is there.
    """
    if not entry.startswith("@"):
        return entry
    try:
        address = Path(entry[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvServerDied(f"{entry}: cannot read the env server's address: {error}") from error
    if not address.startswith(("tcp://", "ipc://")):
        raise EnvServerDied(f"{entry} holds {address!r:.80}, which is no address")
    return address


def write_address(file: str, address: str) -> None:
    """Put an address into the file, for `@FILE`; whoever reads meanwhile has the old or the new.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = Path(f"{file}.tmp")
    temporary.write_text(f"{address}\n", encoding="utf-8")
    temporary.replace(file)


def stays_on_machine(address: str) -> bool:
    """Whether only processes of this machine can reach `address`.

    By what is written: a name other than `localhost` may resolve to anything, so it does not stay.
    """
    if address.startswith("ipc://"):
        return True
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
