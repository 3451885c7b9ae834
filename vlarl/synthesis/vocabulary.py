"""The words of instructions and the things they name, from `configs/synthesis/vocabulary.yaml`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.config.paths import configs_folder, read_yaml
from vlarl.synthesis.arm import Floats

COMPASS = (
    "forward",
    "forward left",
    "left",
    "back left",
    "back",
    "back right",
    "right",
    "forward right",
)
"""Directions every 45 degrees, counterclockwise from the robot's forward (the x axis)."""
INWARD, OUTWARD = len(COMPASS), len(COMPASS) + 1
DIRECTIONS = (*COMPASS, "inward", "outward")
"""The last two are towards and away from the axis of the robot's base."""
RELATIONS = ("left", "right", "back", "forward", "inside", "on")
"""Where a thing ends, seen from another; the first four are directions of the robot's view."""


@dataclass(frozen=True)
class Category:
    """A kind of thing; sizes in meters."""

    name: str
    width: tuple[float, float]
    height: tuple[float, float]
    roles: tuple[str, ...]
    front: str
    """The part that faces a direction; empty if it has none."""


@dataclass(frozen=True)
class Vocabulary:
    """Categories and lists of words, as the file has them."""

    categories: tuple[Category, ...]
    words: dict[str, Any]

    def with_role(self, role: str, front: bool = False) -> Floats:
        """Indices of the categories that have the role, and a front if one is needed."""
        return np.array(
            [
                index
                for index, category in enumerate(self.categories)
                if role in category.roles and (category.front or not front)
            ]
        )


@functools.cache
def load_vocabulary() -> Vocabulary:
    """The shipped vocabulary."""
    words = read_yaml(configs_folder() / "synthesis" / "vocabulary.yaml")
    categories = tuple(
        Category(
            name=each["name"],
            width=(float(each["width"][0]), float(each["width"][1])),
            height=(float(each["height"][0]), float(each["height"][1])),
            roles=tuple(each["roles"]),
            front=each.get("front", ""),
        )
        for each in words["objects"]
    )
    return Vocabulary(categories, words)


def heading(direction: int, position: Floats) -> float:
    """Angle of a direction in radians, counterclockwise from x, at a position [2 or more]."""
    if direction < len(COMPASS):
        return direction * np.pi / 4
    out = float(np.arctan2(position[1], position[0]))
    return out if direction == OUTWARD else out + np.pi


def headings(direction: NDArray[np.int64], position: Floats) -> Floats:
    """The same for arrays [N] and [N, 2 or more]."""
    out = np.arctan2(position[:, 1], position[:, 0])
    compass = direction * (np.pi / 4)
    return np.where(
        direction < len(COMPASS), compass, np.where(direction == OUTWARD, out, out + np.pi)
    )


def wrapped(angle: Floats) -> Floats:
    """The angle within half a turn of zero."""
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)
