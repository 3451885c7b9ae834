"""PhysX on a GPU: whether it can be had in this process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from vlarl.errors import UserError

LIBRARY = "libPhysXGpu_64.so"


def enable(suite: str) -> None:
    """Let PhysX use the GPU, before anything in this process simulates on the processor.

    Args:
        suite: named in the message.

    Raises:
        UserError: if there is no GPU or torch is not made for it, SAPIEN cannot fetch its library,
            or it is too late.
    """
    import sapien

    built = version("torch")
    if built.endswith("+cpu") or not _there(sapien):
        raise UserError(
            f"suite {suite!r}: physics = gpu needs an NVIDIA GPU and torch for CUDA; here SAPIEN "
            f"finds {'one' if _there(sapien) else 'none'}, and torch is {built}. With a GPU: vlarl "
            "suite install maniskill force=true, which takes torch for CUDA where a driver is; "
            "without: env.options.physics=cpu"
        )
    folder = Path.home() / ".sapien" / "physx"
    try:
        with _alone_in(folder):
            sapien.physx.enable_gpu()
    except RuntimeError as error:
        raise UserError(
            f"suite {suite!r}: physics = gpu: {error}. This process has simulated on the processor "
            "before: take one of its own (an env server)"
        ) from error
    # What requests raises is an OSError, too.
    except (OSError, BadZipFile) as error:
        raise UserError(
            f"suite {suite!r}: physics = gpu: {error}. SAPIEN loads libcuda.so, and {LIBRARY}, "
            f"which it fetches from github.com/sapien-sim/physx-precompiled at first use; without "
            f"a network bring it to {folder / sapien.physx.version()}"
        ) from error


def _there(sapien: Any) -> bool:
    try:
        sapien.Device("cuda")
    except RuntimeError:
        return False
    return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Servers that start together must not unpack one file over each other."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
