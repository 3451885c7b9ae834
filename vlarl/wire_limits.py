"""What a message may be at most, checked before anything is allocated for what it declares.

A header of msgpack may say that a list of a million follows, and that its first item is such a
list too, in five bytes each: who believes it runs out of memory. `check_header` walks the bytes and
builds nothing. What a message means is the business of `vlarl/wire.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_MESSAGE_BYTES = 2**30
"""Of all frames of a message."""
MAX_FRAME_BYTES = 2**28
"""Of one frame, and so of one array. Sockets refuse a longer one before they allocate it."""
MAX_FRAMES = 4096
MAX_HEADER_BYTES = 2**20
"""Of frame 0: names, instructions, tracebacks. Whatever is big travels as an array."""
MAX_DEPTH = 16
"""Maps and lists within one another."""
MAX_DIMENSIONS = 8
"""Of an array."""
MAX_REFERENCE_BYTES = 256
"""Of the place in the header where an array belongs."""


class WireError(ValueError):
    """A message that cannot be encoded, or frames that are not a message."""


def _value_sizes() -> list[tuple[int, int, int, int, int] | None]:
    """What each first byte of a msgpack value says of it; None: no value begins so.

    Bytes that follow it anyway, values within it, bytes of its length field, and for each unit of
    that length: bytes, and values within it.
    """
    sizes: list[tuple[int, int, int, int, int] | None] = [(0, 0, 0, 0, 0)] * 256
    for count in range(16):
        sizes[0x80 + count] = (0, 2 * count, 0, 0, 0)
        sizes[0x90 + count] = (0, count, 0, 0, 0)
    for count in range(32):
        sizes[0xA0 + count] = (count, 0, 0, 0, 0)
    sizes[0xC1] = None
    for power in range(3):
        for text in (0xC4, 0xD9):
            sizes[text + power] = (0, 0, 2**power, 1, 0)
        sizes[0xC7 + power] = (1, 0, 2**power, 1, 0)
    sizes[0xCA], sizes[0xCB] = (4, 0, 0, 0, 0), (8, 0, 0, 0, 0)
    for power in range(4):
        for number in (0xCC, 0xD0):
            sizes[number + power] = (2**power, 0, 0, 0, 0)
    for power in range(5):
        sizes[0xD4 + power] = (1 + 2**power, 0, 0, 0, 0)
    for power in range(2):
        sizes[0xDC + power] = (0, 0, 2 ** (power + 1), 0, 1)
        sizes[0xDE + power] = (0, 0, 2 ** (power + 1), 0, 2)
    return sizes


_SIZES = _value_sizes()
_WHOLE = [1 + sizes[0] if sizes is not None and not any(sizes[1:]) else 0 for sizes in _SIZES]
"""First byte -> bytes of the whole value, where that byte says it all; else 0."""


def check_sizes(frames: Sequence[bytes | memoryview]) -> None:
    """Refuse too many frames, too long ones, and too many bytes in all.

    Raises:
        WireError: naming the limit.
    """
    if len(frames) > MAX_FRAMES:
        raise WireError(f"a message of {len(frames)} frames; the limit is {MAX_FRAMES}")
    if frames and len(frames[0]) > MAX_HEADER_BYTES:
        raise WireError(
            f"a header of {len(frames[0])} bytes; the limit is {MAX_HEADER_BYTES}: "
            "what is big must be an array"
        )
    longest = max(map(len, frames), default=0)
    if longest > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {longest} bytes; the limit is {MAX_FRAME_BYTES}")
    total = sum(map(len, frames))
    if total > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {total} bytes; the limit is {MAX_MESSAGE_BYTES}")


def check_header(data: bytes | memoryview, what: str = "the header frame") -> None:
    """Refuse msgpack that nests too deep or declares more than its bytes can hold.

    Args:
        data: one value.
        what: it is called in messages.

    Raises:
        WireError: saying which.
    """
    size, position = len(data), 0
    expected, above = 1, list[int]()  # values still to come, here and at each level above
    owed = 1  # of all levels
    while expected or above:
        if not expected:
            expected = above.pop()
            continue
        expected -= 1
        owed -= 1
        if position >= size:
            raise WireError(f"{what} is cut short")
        first = data[position]
        whole = _WHOLE[first]
        if whole:
            position += whole
            continue
        found = _SIZES[first]
        if found is None:
            raise WireError(f"{what} is not msgpack: byte 0xc1")
        skipped, inside, length_bytes, unit_bytes, unit_values = found
        length = int.from_bytes(data[position + 1 : position + 1 + length_bytes], "big")
        position += 1 + length_bytes + skipped + length * unit_bytes
        inside += length * unit_values
        owed += inside
        # Every value takes a byte at least.
        if position + owed > size:
            raise WireError(f"{what} is cut short, or declares more than it holds")
        if inside:
            if len(above) >= MAX_DEPTH:
                raise WireError(f"{what} nests deeper than {MAX_DEPTH} maps and lists")
            above.append(expected)
            expected = inside
    if position > size:
        raise WireError(f"{what} is cut short")
    if position < size:
        raise WireError(f"{what} has {size - position} bytes too many: not msgpack")
