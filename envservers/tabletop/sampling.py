"""What a seed decides about an episode: poses, colors, light, camera and start of the arm.

The task has no say here, so one seed shows the same first image under every instruction.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.scene import CLEARANCE, OBJECTS

PLACE_LOW, PLACE_HIGH = np.array([0.20, -0.21]), np.array([0.48, 0.21])
"""Bounds of object centers (x, y)."""
MAX_YAW: dict[str, float] = {
    "spoon": 0.5,
    "carrot": 0.5,
    "green_block": 0.5,
    "eggplant": 0.5,
    "towel": 0.3,
    "plate": 0.0,
    "yellow_block": 0.3,
    "basket": 0.15,
}
BASE_COLOR: dict[str, tuple[float, float, float]] = {
    "table": (0.36, 0.37, 0.38),
    "arm": (0.11, 0.11, 0.13),
    "finger": (0.20, 0.20, 0.24),
    "spoon": (0.86, 0.88, 0.90),
    "carrot": (1.00, 0.45, 0.05),
    "carrot_leaf": (0.15, 0.45, 0.10),
    "green_block": (0.10, 0.75, 0.15),
    "eggplant": (0.45, 0.10, 0.60),
    "eggplant_stem": (0.20, 0.40, 0.12),
    "towel": (0.25, 0.50, 0.95),
    "plate": (1.00, 0.68, 0.76),
    "yellow_block": (0.98, 0.86, 0.08),
    "basket": (0.50, 0.28, 0.12),
}
"""Color by geom, or by what precedes the geom's last underscore, or "arm"."""


@dataclass(frozen=True)
class SceneSample:
    """One draw of everything that is random in an episode's start."""

    objects: NDArray[np.float64]
    """[8, 3] x, y, yaw in the order of `OBJECTS`."""
    tool: NDArray[np.float64]
    """[4] start of the tool: x, y, z, yaw."""
    colors: NDArray[np.float32]
    """[geoms, 3] in [0, 1]."""
    light: NDArray[np.float32]
    """[5] unit vector towards the light, ambient share, diffuse share."""
    camera: NDArray[np.float64]
    """[6] jitter of the fixed camera: offset of its position, offset of the point it looks at."""


def _place_objects(rng: np.random.Generator) -> NDArray[np.float64]:
    """[8, 3] poses whose centers keep their clearances; the largest are placed first."""
    radius = np.array([CLEARANCE[name] for name in OBJECTS])
    order = np.argsort(-radius, kind="stable")
    while True:
        centers = np.zeros((len(OBJECTS), 2))
        for count, index in enumerate(order):
            placed = order[:count]
            tries = rng.uniform(PLACE_LOW, PLACE_HIGH, (64, 2))
            gaps = np.linalg.norm(tries[:, None] - centers[placed], axis=-1)
            free = np.flatnonzero((gaps >= radius[index] + radius[placed]).all(axis=1))
            if not len(free):
                break
            centers[index] = tries[free[0]]
        else:
            yaw = np.array([rng.uniform(-1, 1) * MAX_YAW[name] for name in OBJECTS])
            return np.concatenate([centers, yaw[:, None]], axis=1)


def _color_key(geom: str) -> str:
    """Key of `BASE_COLOR` for a geom's name."""
    if geom in BASE_COLOR:
        return geom
    for key in ("finger", "basket", "spoon"):
        if key in geom:
            return key
    return "arm"


def geom_color_keys(model: mujoco.MjModel) -> tuple[str, ...]:
    """[geoms] key of `BASE_COLOR` for every geom of the model."""
    return tuple(_color_key(model.geom(index).name) for index in range(model.ngeom))


def _draw_colors(rng: np.random.Generator, keys: tuple[str, ...]) -> NDArray[np.float32]:
    """[geoms, 3]: hue, saturation and value move a little, so that the color's name stays true."""
    drawn = {}
    for key, base in BASE_COLOR.items():
        hue, saturation, value = colorsys.rgb_to_hsv(*base)
        hue_shift, saturation_factor, value_factor = rng.uniform(-1, 1, 3)
        spread = 0.5 if key == "table" else 0.015
        saturation = saturation * (1 + 0.12 * saturation_factor)
        value = value * (1 + (0.20 if key == "table" else 0.08) * value_factor)
        drawn[key] = colorsys.hsv_to_rgb(
            (hue + spread * hue_shift) % 1.0, min(saturation, 1.0), min(value, 1.0)
        )
    return np.array([drawn[key] for key in keys], np.float32)


def sample_scene(seed: int, color_keys: tuple[str, ...]) -> SceneSample:
    """Draw the scene of `seed`.

    Raises:
        ValueError: for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"an episode's seed must not be negative, got {seed}")
    rng = np.random.default_rng([int(seed), 0x7AB1E])
    objects = _place_objects(rng)
    start = np.array([0.21, 0.0, 0.19, 0.0]) + rng.uniform(-1, 1, 4) * [0.03, 0.05, 0.02, 0.15]
    direction = np.array([rng.uniform(-0.5, 0.7), rng.uniform(-0.6, 0.6), 1.0])
    light = [
        *(direction / np.linalg.norm(direction)),
        rng.uniform(0.4, 0.55),
        rng.uniform(0.4, 0.6),
    ]
    return SceneSample(
        objects=objects,
        tool=start,
        colors=_draw_colors(rng, color_keys),
        light=np.array(light, np.float32),
        camera=rng.uniform(-0.015, 0.015, 6),
    )
