"""Snapshots of a suite: the arrays that change as episodes run, and the instructions, as bytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def packed(arrays: Mapping[str, Any], instructions: Sequence[str]) -> bytes:
    """What `unpack` restores."""
    stream = io.BytesIO()
    words = np.frombuffer(json.dumps(list(instructions)).encode(), np.uint8)
    np.savez(stream, instruction=words, **arrays)
    return stream.getvalue()


def unpack(blob: bytes, arrays: Mapping[str, Any]) -> list[str]:
    """Write a snapshot into `arrays`, all of them or none, and return its instructions.

    Raises:
        ValueError: for the snapshot of a suite with other sizes, or a compressed one, which might
            become of any size.
    """
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        if any(member.compress_type != zipfile.ZIP_STORED for member in stored.zip.infolist()):
            raise ValueError("a snapshot is not compressed: this is none")
        for name, array in arrays.items():
            if stored[name].shape != array.shape:
                raise ValueError(
                    f"snapshot has {name} of shape {stored[name].shape}, this suite needs "
                    f"{array.shape}: restore into a suite with the same num_envs and tasks"
                )
        for name, array in arrays.items():
            array[...] = stored[name]
        instructions: list[str] = json.loads(stored["instruction"].tobytes())
    return instructions
