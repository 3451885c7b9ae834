"""Messages of others' websocket protocols: one msgpack map, with arrays and pictures in it.

openpi marks an array by a key of bytes, vla-eval by one of text; `unpack` reads both. vla-eval
sends pictures as PNG or JPEG. Nothing is unpickled, and what a message declares is held against the
bytes it has before anything is allocated for it.
"""

from __future__ import annotations

import io
import math
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vlarl.wire import DTYPES
from vlarl.wire_limits import MAX_DIMENSIONS, WireError, check_header

MAX_MESSAGE_BYTES = 2**26
"""Of a message; a websocket refuses a longer one before it is read."""
MAX_PIXELS = 2**24
"""Of all PNG and JPEG pictures of a message: few bytes may declare many pixels."""

_ARRAY, _SCALAR, _PICTURE = "__ndarray__", "__npgeneric__", "__image__"


def pack(message: dict[str, Any], text_keys: bool = False) -> bytes:
    """A message of maps, lists, text, numbers and numeric arrays.

    Args:
        message: may hold arrays anywhere.
        text_keys: mark arrays as vla-eval does, not as openpi does.

    Raises:
        WireError: for an array of objects, text or records, or any other Python object.
    """

    def replace(value: object) -> object:
        if isinstance(value, np.generic):
            value = np.asarray(value).item() if value.dtype.kind in "biuf" else value
            if not isinstance(value, np.generic):
                return value
        if not isinstance(value, np.ndarray):
            raise WireError(f"a value of type {type(value).__name__} cannot be sent")
        dtype = value.dtype.newbyteorder("<")
        if dtype.str not in DTYPES:
            raise WireError(f"an array of dtype {value.dtype} cannot be sent")
        marked = {
            _ARRAY: True,
            "data": np.ascontiguousarray(value, dtype).tobytes(),
            "dtype": dtype.str,
            "shape": list(value.shape),
        }
        return marked if text_keys else {key.encode(): each for key, each in marked.items()}

    packed: bytes = msgpack.packb(message, default=replace)
    if len(packed) > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {len(packed)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """The message; its arrays are copies, owned and writable.

    Raises:
        WireError: for what is no message, arrays of objects, text or records, and whatever is
            beyond the limits.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    check_header(data, "the message")
    pixels_left = MAX_PIXELS

    def restore(found: dict[Any, Any]) -> Any:
        nonlocal pixels_left
        fields = {_text(key): value for key, value in found.items()}
        if fields.get(_PICTURE):
            picture = _picture(fields, pixels_left)
            pixels_left -= picture.shape[0] * picture.shape[1]
            return picture
        if fields.get(_ARRAY):
            return _array(fields)
        if fields.get(_SCALAR):
            if not isinstance(fields.get("data"), bool | int | float | str):
                raise WireError("a scalar that is neither a number nor text")
            return fields["data"]
        return fields

    try:
        message = msgpack.unpackb(data, object_hook=restore)
    except (msgpack.UnpackException, ValueError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"the message is not msgpack: {error}") from error
    if not isinstance(message, dict):
        raise WireError(f"the message is a {type(message).__name__}, not a map")
    return message


def _text(key: object) -> str:
    try:
        return key.decode() if isinstance(key, bytes) else str(key)
    except UnicodeDecodeError as error:
        raise WireError(f"a key that is no text: {key!r:.40}") from error


def _array(fields: dict[str, Any]) -> NDArray[Any]:
    data, shape = fields.get("data"), _shape(fields)
    name = fields.get("dtype")
    dtype = DTYPES.get(_text(name)) if isinstance(name, str | bytes) else None
    if dtype is None:
        raise WireError(
            f"an array of dtype {name!r:.40} is refused; allowed: {', '.join(sorted(DTYPES))}"
        )
    expected = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != expected:
        size = len(data) if isinstance(data, bytes) else 0
        raise WireError(f"an array has {size} bytes; its shape {list(shape)} says {expected}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _picture(fields: dict[str, Any], pixels_left: int) -> NDArray[Any]:
    """[height, width, 3] or what a raw one declares; PNG and JPEG say their size first."""
    if fields.get("format") == "raw":
        return _array(fields)
    data = fields.get("data")
    if not isinstance(data, bytes):
        raise WireError("a picture without bytes")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > pixels_left:
                raise WireError(
                    f"a picture of {picture.width}x{picture.height} pixels; the limit of a "
                    f"message is {MAX_PIXELS}"
                )
            if picture.mode != "RGB":
                raise WireError(f"a picture of mode {picture.mode}; only RGB is understood")
            return np.array(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise WireError(f"a damaged picture: {error}") from error


def _shape(fields: dict[str, Any]) -> tuple[int, ...]:
    shape = fields.get("shape")
    whole = isinstance(shape, list) and all(
        type(size) is int and 0 <= size <= MAX_MESSAGE_BYTES for size in shape
    )
    if not isinstance(shape, list) or not whole or len(shape) > MAX_DIMENSIONS:
        raise WireError(f"an array of shape {shape!r:.80} is refused")
    return tuple(shape)
