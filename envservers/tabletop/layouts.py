"""Random tables for synthetic data: which objects, of which size and color, where, in what light.

Wider than an episode's scene (`sampling.py`), whose names and measures are fixed: here blocks,
spoon, towel, plate and basket have any color, everything a size, a mass and a friction of its own,
the table a pattern, and the arm its own stiffness (paper section 3.2.3: visual, geometric and
controller randomization). Whether the table is physically valid is checked where it is laid.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.sampling import BASE_COLOR, MAX_YAW, PLACE_HIGH, PLACE_LOW
from envservers.tabletop.scene import CLEARANCE, FIXED, HALF_HEIGHT, MOVABLE, OBJECTS

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.08),
    "orange": (1.00, 0.45, 0.05),
    "yellow": (0.98, 0.86, 0.08),
    "green": (0.10, 0.70, 0.15),
    "blue": (0.12, 0.30, 0.90),
    "purple": (0.50, 0.12, 0.65),
    "pink": (1.00, 0.62, 0.75),
    "brown": (0.45, 0.25, 0.10),
    "white": (0.94, 0.94, 0.93),
}
NATURAL_COLOR = {"carrot": "orange", "eggplant": "purple"}
"""Objects that would not be what they are called in any other color."""
SHAPE = {
    "spoon": "long and thin",
    "carrot": "an ellipsoid",
    "green_block": "a cube",
    "eggplant": "an ellipsoid",
    "towel": "a flat square",
    "plate": "a round disc",
    "yellow_block": "a cube",
    "basket": "an open box",
}
BLOCKS = ("green_block", "yellow_block")
PATTERNS = ("plain", "checker", "stripes", "planks", "speckle")
_SCALE = {"green_block": (0.85, 1.1), "yellow_block": (0.9, 1.1)}
_USUAL_SCALE = (0.9, 1.1)
_EDGES = (((-0.3, -0.45), (0.53, 0.3)), ((-0.1, -0.3), (0.7, 0.45)))
"""Least and greatest of `Layout.edges`: around the arm and every place where things may lie."""
_STACKABLE = ("towel", "plate", "basket", *BLOCKS)


@dataclass(frozen=True)
class Pattern:
    """What the table's surface looks like."""

    kind: str
    """One of `PATTERNS`."""
    color: NDArray[np.float32]
    """[3] of every other part; the rest has the table's own color."""
    pitch: float
    """Meters from one part to the next."""
    angle: float
    """Of the pattern about z, radians."""


@dataclass(frozen=True)
class Controller:
    """How the arm answers, relative to the suite's."""

    stiffness: float = 1.0
    damping: float = 1.0
    pace: float = 1.0
    """Share of the channels' bounds that motions use."""
    action_noise: float = 0.0
    """Of each motion, as a share of its bound."""


@dataclass(frozen=True)
class Layout:
    """One table."""

    present: tuple[str, ...]
    """Of `OBJECTS`, in that order; the others are out of sight."""
    colors: dict[str, str]
    """Present object -> name of its color."""
    geom_colors: dict[str, tuple[float, float, float]]
    """Color key of `sampling.geom_color_keys` -> color."""
    scale: dict[str, float]
    """Object -> size relative to the model's."""
    density: dict[str, float]
    """Movable object -> mass relative to what its size alone would make it."""
    friction: float
    """Of all objects, relative to the model's."""
    poses: dict[str, tuple[float, float, float]]
    """Present object -> x, y, yaw."""
    stacked: dict[str, str]
    """Object -> what it stands on or in, where that is not the table."""
    tool: NDArray[np.float64]
    """[4] start of the tool."""
    light: NDArray[np.float32]
    """[5] as `sampling.SceneSample`."""
    camera: NDArray[np.float64]
    """[6] as `sampling.SceneSample`."""
    background: NDArray[np.float32]
    """[3] color of what lies beyond the table's edge."""
    edges: NDArray[np.float64]
    """[2, 2] lowest and highest x and y of the table, meters."""
    pattern: Pattern
    controller: Controller

    def name(self, thing: str) -> str:
        """What people call an object: `small red block`, `carrot`, `blue plate`."""
        if thing in NATURAL_COLOR:
            return thing
        if thing not in BLOCKS:
            return f"{self.colors[thing]} {thing}"
        name = f"{self.colors[thing]} block"
        other = BLOCKS[1 - BLOCKS.index(thing)]
        if self.colors.get(other) != self.colors[thing]:
            return name
        return f"{'small' if thing == 'green_block' else 'large'} {name}"

    def half_height(self, thing: str) -> float:
        """Height of an object's center over what it lies on."""
        return HALF_HEIGHT[thing] * self.scale[thing]


def sample_layout(
    random: np.random.Generator, stacks: int = 0, objects: int = 0, alike: bool = False
) -> Layout:
    """Draw a table.

    Args:
        random: draws everything.
        stacks: at most so many objects stand on or in others.
        objects: how many are on the table, at most 8; 0: three to eight.
        alike: whether what can be carried shall share one color, as far as it can have any.
    """
    count = objects or int(random.integers(3, len(OBJECTS) + 1))
    chosen = set(random.choice(OBJECTS, count, replace=False).tolist())
    present = tuple(name for name in OBJECTS if name in chosen)
    colors = {name: _color_name(name, random) for name in present}
    if alike:
        shared = str(random.choice(list(PALETTE)))
        colors |= {n: shared for n in present if n in MOVABLE and n not in NATURAL_COLOR}
    scale = {name: random.uniform(*_SCALE.get(name, _USUAL_SCALE)) for name in OBJECTS}
    if colors.get(BLOCKS[0]) == colors.get(BLOCKS[1], ""):
        # `small` and `large` must be true at a glance.
        scale["green_block"], scale["yellow_block"] = 0.85, 1.1
    stacked = _stacks(present, stacks, random)
    light = random.uniform(-0.8, 0.8, 2)
    direction = np.array([*light, 1.0]) / np.linalg.norm([*light, 1.0])
    return Layout(
        present=present,
        colors=colors,
        geom_colors=_geom_colors(colors, random),
        scale=scale,
        density={name: random.uniform(0.7, 1.4) for name in MOVABLE},
        friction=random.uniform(0.8, 1.25),
        poses=_poses(present, stacked, scale, random),
        stacked=stacked,
        tool=np.array([0.21, 0.0, 0.19, 0.0]) + random.uniform(-1, 1, 4) * [0.03, 0.08, 0.03, 0.3],
        light=np.array([*direction, *random.uniform([0.35, 0.35], [0.6, 0.65])], np.float32),
        camera=random.uniform(-0.03, 0.03, 6),
        background=random.uniform(0.2, 0.9, 3).astype(np.float32),
        # From a stream of its own: all else is as it was drawn before tables had edges.
        edges=random.spawn(1)[0].uniform(*_EDGES),
        pattern=_pattern(random),
        controller=Controller(
            stiffness=random.uniform(0.8, 1.25),
            damping=random.uniform(0.9, 1.2),
            pace=random.uniform(0.6, 1.0),
            action_noise=random.uniform(0.0, 0.08),
        ),
    )


def _color_name(name: str, random: np.random.Generator) -> str:
    return NATURAL_COLOR.get(name) or str(random.choice(list(PALETTE)))


def _geom_colors(
    colors: dict[str, str], random: np.random.Generator
) -> dict[str, tuple[float, float, float]]:
    """Every color key's color: objects as they are called, a little off; the table is muted."""
    found = {}
    for key, base in BASE_COLOR.items():
        color = PALETTE[colors[key]] if key in colors else base
        hue, saturation, value = colorsys.rgb_to_hsv(*color)
        shift, more, brighter = random.uniform(-1, 1, 3)
        if key == "table":
            found[key] = colorsys.hsv_to_rgb(random.random(), 0.25 * abs(more), 0.5 + 0.3 * shift)
            continue
        saturation, value = saturation * (1 + 0.1 * more), value * (1 + 0.07 * brighter)
        found[key] = colorsys.hsv_to_rgb(
            (hue + 0.012 * shift) % 1, min(saturation, 1.0), min(value, 1.0)
        )
    return found


def _pattern(random: np.random.Generator) -> Pattern:
    return Pattern(
        kind=str(random.choice(PATTERNS)),
        color=random.uniform(0.25, 0.85, 3).astype(np.float32),
        pitch=random.uniform(0.03, 0.12),
        angle=random.uniform(0, np.pi),
    )


def _stacks(present: tuple[str, ...], most: int, random: np.random.Generator) -> dict[str, str]:
    """Which movable objects stand on which others; nothing bears or is borne twice."""
    stacked: dict[str, str] = {}
    for _ in range(most):
        used = {*stacked, *stacked.values()}
        upper = [name for name in MOVABLE if name in present and name not in used]
        lower = [name for name in _STACKABLE if name in present and name not in used]
        pairs = [(a, b) for a in upper for b in lower if a != b and _bears(a, b)]
        if not pairs:
            break
        above, below = pairs[random.integers(len(pairs))]
        stacked[above] = below
    return stacked


def _bears(above: str, below: str) -> bool:
    """Whether one object may rest on another: only a smaller block on a block."""
    return below in FIXED or (above, below) == BLOCKS


def _poses(
    present: tuple[str, ...],
    stacked: dict[str, str],
    scale: dict[str, float],
    random: np.random.Generator,
) -> dict[str, tuple[float, float, float]]:
    """x, y, yaw of all; what stands on the table keeps its distances, the largest placed first."""
    standing = sorted((n for n in present if n not in stacked), key=lambda n: -CLEARANCE[n])
    radius = {name: CLEARANCE[name] * max(1.0, scale[name]) for name in present}
    while True:
        poses: dict[str, tuple[float, float, float]] = {}
        for name in standing:
            tries = random.uniform(PLACE_LOW, PLACE_HIGH, (64, 2))
            for other, (x, y, _) in poses.items():
                gaps = np.linalg.norm(tries - [x, y], axis=1)
                tries = tries[gaps >= radius[name] + radius[other]]
            if not len(tries):
                break
            poses[name] = (*tries[0].tolist(), random.uniform(-1, 1) * MAX_YAW[name])
        else:
            break
    for above, below in stacked.items():
        x, y, yaw = poses[below]
        shift = random.uniform(-0.004, 0.004, 2)
        turn = yaw if below == "basket" else random.uniform(-1, 1) * MAX_YAW[above]
        poses[above] = (x + shift[0], y + shift[1], turn)
    return poses
