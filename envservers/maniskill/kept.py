"""What an episode of ManiSkill is at one time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PHYSICS = "physics"
_BESIDE = "beside."


@dataclass(frozen=True)
class Kept:
    """One row's, but for contacts.

    The solver starts its next step from them, so what goes on from here may differ in the last
    digits.
    """

    physics: NDArray[np.float32]
    """[d] ManiSkill's flat state: poses, velocities, joints."""
    beside: dict[str, NDArray[Any]]
    """What the task itself remembers of the row, by attribute."""

    def packed(self) -> bytes:
        """What `unpacked` reads."""
        stream = io.BytesIO()
        beside = {_BESIDE + name: values for name, values in self.beside.items()}
        np.savez(stream, **{_PHYSICS: self.physics, **beside})  # type: ignore[arg-type]
        return stream.getvalue()


def unpacked(blob: bytes) -> Kept:
    """What was `packed`."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        beside = {
            name.removeprefix(_BESIDE): stored[name]
            for name in stored.files
            if name.startswith(_BESIDE)
        }
        return Kept(stored[_PHYSICS], beside)
