"""Boxes and points in words, on a scale of 1000 whatever the image's size (paper section 3.2.5).

The wording is that of Qwen3-VL and Qwen3.5's grounding answers, a JSON list of
`{"bbox_2d": [x1, y1, x2, y2], "label": ...}` or `{"point_2d": [x, y], "label": ...}`: a pretrained
backbone speaks it already, and it names what each box holds. `<box>` markers were Qwen-VL's.
Horizontal before vertical, from the left and top edges; one image per answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SCALE = 1000
_KEYS = {4: "bbox_2d", 2: "point_2d"}
"""Number of coordinates -> the key that holds them."""


@dataclass(frozen=True)
class Place:
    """A named box or point.

    Raises:
        ValueError: for coordinates outside [0, 1], a box without extent or turned round, or
            another number of coordinates.
    """

    label: str
    coordinates: tuple[float, ...]
    """Fractions of the image's width and height: x1, y1, x2, y2 of a box, x, y of a point."""

    def __post_init__(self) -> None:
        given = self.coordinates
        if len(given) not in _KEYS:
            raise ValueError(f"{self.label!r}: {len(given)} coordinates; a box has 4, a point 2")
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in given):
            raise ValueError(f"{self.label!r}: coordinates {given} are not all within the image")
        if len(given) == 4 and not (given[0] < given[2] and given[1] < given[3]):
            raise ValueError(f"{self.label!r}: box {given} does not go right and down")


def format_places(places: Sequence[Place]) -> str:
    """The answer that names these places; coordinates are rounded to the nearest of 1000 units."""
    rows = [
        {
            _KEYS[len(place.coordinates)]: [round(value * SCALE) for value in place.coordinates],
            "label": place.label,
        }
        for place in places
    ]
    return json.dumps(rows)


def parse_places(text: str) -> tuple[Place, ...]:
    """Inverse of `format_places`, to half a unit; also takes the text in a ```json fence.

    Raises:
        ValueError: for text that is no such list, or coordinates out of range.
    """
    body = text.strip()
    if body.startswith("```"):
        body = body.removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        rows = json.loads(body)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON list of boxes or points: {text!r:.80}: {error}") from error
    return tuple(_place(row) for row in (rows if isinstance(rows, list) else [rows]))


def _place(row: Any) -> Place:
    if not isinstance(row, dict):
        raise ValueError(f"{row!r:.80} is no box or point: it needs bbox_2d or point_2d, and label")
    for count, key in _KEYS.items():
        if key not in row:
            continue
        numbers = row[key]
        is_numbers = isinstance(numbers, list) and all(
            isinstance(n, int | float) and not isinstance(n, bool) for n in numbers
        )
        if not is_numbers or len(numbers) != count:
            raise ValueError(f"{key} = {numbers!r:.80}: needs {count} numbers from 0 to {SCALE}")
        return Place(str(row.get("label", "")), tuple(number / SCALE for number in numbers))
    raise ValueError(f"{row!r:.80} has neither bbox_2d nor point_2d")
