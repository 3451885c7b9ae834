"""Shared keys of env servers: who has the file may serve, and may connect.

A key is the secret half of a CURVE key pair (ZeroMQ's elliptic-curve security), which both sides
use: the server proves to the client that it has it, the client to the server, and all that they say
is encrypted. Letting in and turning away is the business of `envservers/guard.py`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from vlarl.errors import UserError

_COMMENT = "# Key of env servers. Whoever has it may serve and connect: show it to nobody.\n"
_LENGTH = 40


@dataclass(frozen=True)
class Key:
    """Both halves, in ZeroMQ's printable form (Z85, 40 characters)."""

    public: bytes
    secret: bytes = field(repr=False)

    def protect_server(self, socket: zmq.Socket[bytes]) -> None:
        """Have `socket`, not bound yet, demand the key of its peers (see `Guard`)."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret

    def protect_client(self, socket: zmq.Socket[bytes]) -> None:
        """Have `socket`, not connected yet, show the key and demand it of the server."""
        socket.curve_serverkey = self.public
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret


def new_key() -> Key:
    """A key that no file holds."""
    public, secret = zmq.curve_keypair()
    return Key(public, secret)


@contextmanager
def key_in_memory(key: Key) -> Iterator[str]:
    """The path of a file that holds the key, in memory alone and for this process's lifetime.

    Children of the same user can read it; nothing is left behind, however this process ends.
    """
    descriptor = os.memfd_create("vlarl-key")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, key.secret)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def write_new_key(path: str | Path) -> None:
    """Make a key and write it to a new file that its owner alone can read.

    Raises:
        UserError: if the file exists or cannot be written.
    """
    key = new_key()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UserError(f"{path} exists: choose another name, or delete it first") from error
    except OSError as error:
        raise UserError(f"cannot write the key to {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{_COMMENT}{key.secret.decode()}\n")


def read_key(path: str | Path) -> Key:
    """The key in a file.

    Raises:
        UserError: if it is not there, holds no key, or others than its owner can read it.
    """
    try:
        mode = os.stat(path).st_mode
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise UserError(
            f"cannot read the key file {path}: {error.strerror}. `vlarl key {path}` makes a key; "
            "every machine needs a copy of the same file"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(_no_key(path)) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(
            f"key file {path}: others than its owner may use it (permissions "
            f"{stat.S_IMODE(mode):o}). Take that from them: chmod 600 {path}"
        )
    found = [line.strip() for line in lines if line.strip() and not line.startswith("# ")]
    if len(found) != 1 or len(found[0]) != _LENGTH:
        raise UserError(_no_key(path))
    secret = found[0].encode()
    try:
        return Key(zmq.curve_public(secret), secret)
    except (zmq.ZMQError, ValueError) as error:
        raise UserError(_no_key(path)) from error


def _no_key(path: str | Path) -> str:
    return f"{path} holds no key: `vlarl key FILE` makes one, in a file of its own"
