"""Addresses of env servers, `tcp://HOST:PORT` and `ipc://PATH`: which of them strangers reach."""

from __future__ import annotations

import ipaddress


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
