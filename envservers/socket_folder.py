"""The private folder of a spawned server's socket, gone with whoever used it, however they ended.

Who is killed cleans nothing up: Ray ends an actor's children with it, by SIGKILL. So the folder is
locked while its host or its server lives, which the kernel undoes at any death, and whoever makes
the next one removes those that nobody has locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "vlarl-server-"


def make_socket_folder() -> tuple[Path, int]:
    """A new one, and a descriptor that holds its lock: the server is to inherit it."""
    sweep_socket_folders()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _locked(folder)
        if lock is not None:
            return folder, lock
        # Another one swept between the two lines; its own removal is under way.


def remove_socket_folder(folder: Path) -> None:
    """From within the server; the host may have been first."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "socket").unlink(missing_ok=True)
        folder.rmdir()


def sweep_socket_folders() -> None:
    """Remove what the dead left on this machine; folders of other users stay."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if somebody has it, or it is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been removed before it was locked.
        folder.stat()
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        return None
    return lock
