"""Images between a server and a client on the same machine: a ring of slots in a mapped file.

The client creates the file, the server maps it, and the client unlinks the name as soon as it has
been mapped, so that no death of either leaves a file behind. `multiprocessing.shared_memory` is
not used: Python 3.11's resource tracker unlinks segments that a process merely attached.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlarl.types import CameraSpec, EnvSpec

SLOTS = 4
"""Answers that may be on their way at once; a client never has more requests unanswered."""

SHARED_FOLDER = Path("/dev/shm")


def slot_bytes(spec: EnvSpec, num_envs: int) -> int:
    """Bytes of one image of every camera for every environment."""
    return num_envs * sum(camera.height * camera.width * 3 for camera in spec.cameras)


class ImageRing:
    """`SLOTS` slots; answer `k` of a connection lies in slot `k % SLOTS`."""

    def __init__(self, path: str, spec: EnvSpec, num_envs: int) -> None:
        """Map an existing file.

        Raises:
            ValueError: if the file's size is not that of a ring for this spec.
        """
        self._cameras: tuple[CameraSpec, ...] = spec.cameras
        self._slot_bytes = slot_bytes(spec, num_envs)
        expected = SLOTS * self._slot_bytes
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected:
                raise ValueError(f"the shared file has {size} bytes, the images need {expected}")
            self._map = mmap.mmap(file.fileno(), expected)

    def write(self, slot: int, images: dict[str, NDArray[np.uint8]]) -> None:
        """Lay `images` (camera name -> [n, height, width, 3]) into a slot."""
        offset = slot * self._slot_bytes
        for camera in self._cameras:
            image = images[camera.name]
            view = np.frombuffer(self._map, np.uint8, image.size, offset)
            view.reshape(image.shape)[...] = image
            offset += image.size

    def read(self, slot: int, rows: int) -> dict[str, NDArray[np.uint8]]:
        """Copies of the images of `rows` environments in a slot."""
        images = {}
        offset = slot * self._slot_bytes
        for camera in self._cameras:
            shape = (rows, camera.height, camera.width, 3)
            size = rows * camera.height * camera.width * 3
            images[camera.name] = (
                np.frombuffer(self._map, np.uint8, size, offset).reshape(shape).copy()
            )
            offset += size
        return images

    def close(self) -> None:
        """Unmap; safe to call twice."""
        self._map.close()


def create_ring_file(spec: EnvSpec, num_envs: int) -> str:
    """Path of a new file of a ring's size, in memory if there is room, else on disk.

    Raises:
        OSError: if neither place has room.
    """
    size = SLOTS * slot_bytes(spec, num_envs)
    folders = [Path(tempfile.gettempdir())]
    if SHARED_FOLDER.is_dir() and _free_bytes(SHARED_FOLDER) > 2 * size:
        folders.insert(0, SHARED_FOLDER)
    for folder in folders:
        descriptor, path = tempfile.mkstemp(prefix="vlarl-images-", dir=folder)
        try:
            # Reserving the pages turns a full file system into an error here; a hole would be a
            # SIGBUS at the first write.
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.unlink(path)
            if folder == folders[-1]:
                raise
        else:
            return path
        finally:
            os.close(descriptor)
    raise AssertionError("unreachable: the last folder returns or raises")


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
