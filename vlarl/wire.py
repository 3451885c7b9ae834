"""The one wire format between simulators and policies: a msgpack header and raw buffers.

A message is a list of frames. Frame 0 is a msgpack map whose arrays are replaced by references
(buffer number, dtype, shape); each further frame is one array's contiguous bytes. Nothing is
pickled, so a peer can send wrong values but never code; what a message may be at most is in
`vlarl/wire_limits.py`. What the messages of a server mean is in `envservers/server.py`; sockets are
not this file's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from vlarl.types import CameraSpec, Channel, EnvSpec, EpisodeStart, TimeStep
from vlarl.wire_limits import (
    MAX_DIMENSIONS,
    MAX_FRAME_BYTES,
    MAX_REFERENCE_BYTES,
    WireError,
    check_header,
    check_sizes,
)

VERSION = 2
"""Raised whenever a message of an older version would be misread."""

_ARRAY = 1
DTYPES = {
    dtype.str: dtype
    for dtype in map(
        np.dtype,
        ("|b1", "|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"),
    )
}
"""Name on the wire -> what an array may be of."""


def encode(message: dict[str, Any]) -> list[bytes | memoryview]:
    """Frames of a message of maps, lists, strings, bytes, numbers and numeric arrays.

    Raises:
        WireError: for an array of objects, strings or records, for any other Python object, and for
            what is beyond the limits.
    """
    buffers: list[bytes | memoryview] = []

    def replace(value: object) -> object:
        if isinstance(value, np.ndarray):
            dtype = value.dtype.newbyteorder("<")
            if dtype.str not in DTYPES:
                raise WireError(f"an array of dtype {value.dtype} cannot cross the wire")
            array = np.ascontiguousarray(value, dtype)
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
    frames = [header, *buffers]
    check_sizes(frames)
    return frames


def decode(frames: Sequence[bytes | memoryview]) -> dict[str, Any]:
    """The message of these frames; its arrays are copies, owned and writable.

    Raises:
        WireError: for frames that are truncated, superfluous, of another version or beyond the
            limits.
    """
    if not frames:
        raise WireError("an empty message: expected a header frame")
    check_sizes(frames)
    check_header(frames[0])
    used: set[int] = set()

    def restore(code: int, data: bytes) -> NDArray[Any]:
        if code != _ARRAY:
            raise WireError(f"unknown extension type {code} in a header")
        index, dtype, shape = _reference(data)
        if index in used or not 0 <= index < len(frames) - 1:
            raise WireError(f"the header refers to buffer {index}, {len(frames) - 1} are unclaimed")
        used.add(index)
        buffer = frames[index + 1]
        expected = math.prod(shape) * dtype.itemsize
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
    if len(data) > MAX_REFERENCE_BYTES:
        raise WireError(f"an array reference of {len(data)} bytes")
    try:
        index, name, shape = msgpack.unpackb(data)
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise WireError(f"a damaged array reference: {error}") from error
    if not isinstance(name, str) or name not in DTYPES:
        raise WireError(f"an array of dtype {name!r:.40} is refused")
    sizes_valid = (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n <= MAX_FRAME_BYTES for n in shape)
    )
    if type(index) is not int or not sizes_valid:
        raise WireError(f"a damaged array reference: buffer {index!r:.40}, shape {shape!r:.80}")
    return index, DTYPES[name], tuple(shape)


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
