"""The one wire format between simulators and policies: a msgpack header and raw buffers.

A message is a list of frames. Frame 0 is a msgpack map whose arrays are replaced by references
(buffer number, dtype, shape); each further frame is one array's contiguous bytes. Nothing is
pickled, so a peer can send wrong values but never code. What the messages of a server mean is in
`envservers/server.py`; sockets are not this file's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from vlarl.types import CameraSpec, Channel, EnvSpec, EpisodeStart, TimeStep

VERSION = 1
"""Raised whenever a message of an older version would be misread."""

_ARRAY = 1
_ARRAY_KINDS = "biuf"


class WireError(ValueError):
    """A message that cannot be encoded, or frames that are not a message."""


def encode(message: dict[str, Any]) -> list[bytes | memoryview]:
    """Frames of a message of maps, lists, strings, bytes, numbers and numeric arrays.

    Raises:
        WireError: for an array of objects, strings or records, and for any other Python object.
    """
    buffers: list[bytes | memoryview] = []

    def replace(value: object) -> object:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in _ARRAY_KINDS:
                raise WireError(f"an array of dtype {value.dtype} cannot cross the wire")
            array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
            buffers.append(array.tobytes() if array.size == 0 else array.data.cast("B"))
            reference = [len(buffers) - 1, array.dtype.str, list(value.shape)]
            return msgpack.ExtType(_ARRAY, msgpack.packb(reference))
        if isinstance(value, np.generic):
            return value.item()
        raise WireError(f"a value of type {type(value).__name__} cannot cross the wire")

    try:
        header = msgpack.packb({"version": VERSION, "message": message}, default=replace)
    except (OverflowError, UnicodeEncodeError) as error:
        raise WireError(f"cannot encode a message: {error}") from error
    return [header, *buffers]


def decode(frames: Sequence[bytes | memoryview]) -> dict[str, Any]:
    """The message of these frames; its arrays are copies, owned and writable.

    Raises:
        WireError: for frames that are truncated, superfluous, or of another version.
    """
    if not frames:
        raise WireError("an empty message: expected a header frame")
    used: set[int] = set()

    def restore(code: int, data: bytes) -> NDArray[Any]:
        if code != _ARRAY:
            raise WireError(f"unknown extension type {code} in a header")
        index, dtype, shape = _reference(data)
        if index in used or not 0 <= index < len(frames) - 1:
            raise WireError(f"the header refers to buffer {index}, {len(frames) - 1} are unclaimed")
        used.add(index)
        buffer = frames[index + 1]
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if len(buffer) != expected:
            raise WireError(f"buffer {index} has {len(buffer)} bytes, its header says {expected}")
        return np.frombuffer(buffer, dtype).reshape(shape).copy()

    try:
        header = msgpack.unpackb(frames[0], ext_hook=restore)
    except (msgpack.UnpackException, ValueError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"the header frame is not msgpack or is cut short: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("message"), dict):
        raise WireError("the header frame is not a message of this protocol")
    if header.get("version") != VERSION:
        raise WireError(
            f"the peer speaks wire version {header.get('version')}, this side {VERSION}: "
            "install the same release on both"
        )
    if len(used) != len(frames) - 1:
        raise WireError(f"{len(frames) - 1} buffers came, the header refers to {len(used)}")
    return header["message"]


def _reference(data: bytes) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """Checked content of an array reference."""
    try:
        index, dtype_name, shape = msgpack.unpackb(data)
        dtype = np.dtype(dtype_name)
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise WireError(f"a damaged array reference: {error}") from error
    if dtype.kind not in _ARRAY_KINDS:
        raise WireError(f"an array of dtype {dtype} is refused")
    sizes_valid = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not isinstance(index, int) or not sizes_valid:
        raise WireError(f"a damaged array reference: buffer {index!r}, shape {shape!r}")
    return index, dtype, tuple(shape)


def spec_to_body(spec: EnvSpec) -> dict[str, Any]:
    """An `EnvSpec` as a map of plain values."""
    return {
        **vars(spec),
        "cameras": [vars(camera) for camera in spec.cameras],
        "channels": [vars(channel) for channel in spec.channels],
    }


def spec_from_body(body: dict[str, Any]) -> EnvSpec:
    """Inverse of `spec_to_body`."""
    return _record(
        EnvSpec,
        body,
        tasks=tuple,
        cameras=lambda items: tuple(_record(CameraSpec, item) for item in items),
        channels=lambda items: tuple(_record(Channel, item) for item in items),
    )


def starts_to_body(starts: Sequence[EpisodeStart]) -> list[dict[str, Any]]:
    """Episode starts as maps of plain values."""
    return [vars(start) for start in starts]


def starts_from_body(body: list[dict[str, Any]]) -> list[EpisodeStart]:
    """Inverse of `starts_to_body`."""
    return [_record(EpisodeStart, item) for item in body]


def time_step_to_body(time_step: TimeStep) -> dict[str, Any]:
    """A `TimeStep` as a map of arrays and plain values."""
    return dict(vars(time_step))


def time_step_from_body(body: dict[str, Any]) -> TimeStep:
    """Inverse of `time_step_to_body`."""
    return _record(
        TimeStep,
        body,
        instruction=tuple,
        task=tuple,
        frames=lambda frames: None if frames is None else tuple(frames),
    )


def _record(record_type: type, body: object, **converters: Any) -> Any:
    """A record from its map; fields that are missing or unknown are a WireError."""
    if not isinstance(body, dict):
        raise WireError(f"expected a {record_type.__name__}, got {type(body).__name__}")
    values = {
        name: converters[name](value) if name in converters else value
        for name, value in body.items()
    }
    try:
        return record_type(**values)
    except TypeError as error:
        raise WireError(f"not a {record_type.__name__}: {error}") from error
