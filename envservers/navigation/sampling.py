"""What a seed decides: rooms, landmarks, colors, light, and an episode in which a sentence is true.

The rooms of a seed are the same under every task; where the agent starts and what its goal is
depend on the task.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.navigation.geometry import Floats, Obstacles, gaps, is_clear, is_free
from envservers.navigation.planner import CLEARANCE, distance_field, distance_from, way_from
from envservers.navigation.scene import (
    AGENT_RADIUS,
    ARENA,
    COLORS,
    HALF,
    PANEL_HALF,
    PANELS,
    PARKED,
    PERSON_RADIUS,
    RADIUS,
    SHAPES,
    WALL_HALF,
)
from envservers.navigation.tasks import TASK_BY_NAME, TURNS
from vlarl.waypoints import wrapped

WALLS = slice(0, 2 * PANELS)
LANDMARKS = slice(2 * PANELS, 2 * PANELS + len(SHAPES))
PERSON = 2 * PANELS + len(SHAPES)
"""Places along the axis of obstacles."""
WALK_STEPS = 20
"""Control steps that the person walks at most."""
PERSON_STEP = 0.25
"""Meters of a control step of the person: half of the agent's."""
_OPEN_SHARE = 0.5
"""How often one of the four inner walls is missing. Were more, there might be nowhere to search."""
_TRIES = 200
_NEAR, _FAR = 1.4, 4.0
"""Meters between the start and a goal that is in view."""
_HALF_VIEW = math.radians(38)
"""Half of the field of view in which a goal counts as seen; the camera's is 45 degrees."""


@dataclass(frozen=True)
class Rooms:
    """What a seed decides whatever the task."""

    obstacles: Obstacles
    """Panels, landmarks and the person, who is away; what is away is far outside."""
    names: tuple[str, ...]
    """[6] of the landmarks: color and shape, no two alike."""
    landmark_colors: NDArray[np.float32]
    """[6, 3]"""
    surface_colors: NDArray[np.float32]
    """[4, 3] of floor, walls, person and head."""
    light: NDArray[np.float32]
    """[5] direction towards it, ambient and diffuse share."""


@dataclass(frozen=True)
class EpisodeSample:
    """What a seed and a task decide."""

    start: Floats
    """[3] pose of the agent."""
    goal: int
    """Which obstacle."""
    walk: Floats
    """[WALK_STEPS + 1, 2] where the goal is at each control step; the last places may repeat."""
    field: Floats
    """Meters to walk to where the goal ends up, from each cell; see `planner.py`."""
    instruction: str


def sample_rooms(seed: int) -> Rooms:
    """Draw the rooms of `seed`.

    Raises:
        ValueError: for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"an episode's seed must not be negative, got {seed}")
    random = np.random.default_rng([int(seed), 0x4A7])
    while True:
        panels, doors = _draw_panels(random)
        places = _place_landmarks(random, panels, doors)
        if places is not None:
            break
    half = np.concatenate(
        [
            np.repeat([[WALL_HALF, PANEL_HALF], [PANEL_HALF, WALL_HALF]], PANELS, axis=0),
            [HALF[shape] for shape in SHAPES],
            [(0.0, 0.0)],
        ]
    )
    radius = np.array([*[0.0] * 2 * PANELS, *(RADIUS[shape] for shape in SHAPES), PERSON_RADIUS])
    colors = _draw_color_names(random)
    direction = np.array([random.uniform(-0.6, 0.6), random.uniform(-0.6, 0.6), 1.0])
    shares = random.uniform(0.45, 0.55), random.uniform(0.4, 0.55)
    return Rooms(
        obstacles=Obstacles(np.concatenate([panels, places, [[PARKED, PARKED]]]), half, radius),
        names=tuple(f"{color} {shape}" for color, shape in zip(colors, SHAPES, strict=True)),
        landmark_colors=np.array([_shifted(random, COLORS[name]) for name in colors], np.float32),
        surface_colors=_draw_surfaces(random),
        light=np.array([*direction / np.linalg.norm(direction), *shares], np.float32),
    )


def sample_episode(rooms: Rooms, task: str, seed: int) -> EpisodeSample:
    """Draw a start and a goal for which the task's sentence is true; the same for the same seed."""
    index = list(TASK_BY_NAME).index(task)
    random = np.random.default_rng([int(seed), index, 0x5E])
    while True:
        draw = _draw_follow if TASK_BY_NAME[task].follows else _draw_landmark
        sample = draw(random, rooms, task)
        if sample is not None:
            return sample


def _draw_panels(random: np.random.Generator) -> tuple[Floats, Floats]:
    """[12, 2] centers of the inner walls' panels, and [D, 2] of the doors between them."""
    split = random.integers(-1, 2, 2).astype(float)
    cells = np.arange(PANELS) + 0.5 - ARENA
    missing = int(random.integers(4)) if random.random() < _OPEN_SHARE else -1
    panels, doors = [], []
    for axis in (0, 1):
        absent = np.zeros(PANELS, bool)
        for end, side in enumerate((cells < split[1 - axis], cells > split[1 - axis])):
            arm = np.flatnonzero(side)
            door = int(random.choice(arm))
            absent[arm if 2 * axis + end == missing else door] = True
        for index, cell in enumerate(cells):
            center = (split[0], cell) if axis == 0 else (cell, split[1])
            panels.append((PARKED, PARKED) if absent[index] else center)
            if absent[index]:
                doors.append(center)
    return np.array(panels), np.array(doors)


def _place_landmarks(random: np.random.Generator, panels: Floats, doors: Floats) -> Floats | None:
    """[6, 2] centers that leave all doors and a way between any two; None if there is no room."""
    half = np.repeat([[WALL_HALF, PANEL_HALF], [PANEL_HALF, WALL_HALF]], PANELS, axis=0)
    walls = Obstacles(panels, half, np.zeros(len(panels)))
    places: list[Floats] = []
    for shape in SHAPES:
        size = RADIUS[shape] + HALF[shape][0]
        tries = random.uniform(-ARENA + 0.35 + size, ARENA - 0.35 - size, (_TRIES, 2))
        roomy = gaps(tries, walls).min(axis=-1) >= 0.3 + size
        roomy &= np.linalg.norm(tries[:, None] - doors, axis=-1).min(axis=-1) >= 0.75 + size
        for other in places:
            roomy &= np.linalg.norm(tries - other, axis=-1) >= 1.1
        if not roomy.any():
            return None
        places.append(tries[np.argmax(roomy)])
    return np.array(places)


def _draw_color_names(random: np.random.Generator) -> list[str]:
    """[6] such that shape and color together tell the landmarks apart, and neither does alone."""
    chosen = random.permutation(list(COLORS))[:4]
    return [str(color) for _ in range(3) for color in random.permutation(chosen)[:2]]


def _shifted(random: np.random.Generator, color: tuple[float, float, float]) -> Floats:
    """The color in another light: its name stays true."""
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    shift = random.uniform(-1, 1, 3) * [0.012, 0.1, 0.08]
    return np.array(
        colorsys.hsv_to_rgb((hue + shift[0]) % 1, min(saturation * (1 + shift[1]), 1),
                            min(value * (1 + shift[2]), 1))
    )  # fmt: skip


def _draw_surfaces(random: np.random.Generator) -> NDArray[np.float32]:
    """[4, 3] muted colors of floor and walls, and of the person's clothes and head."""
    floor = colorsys.hsv_to_rgb(random.random(), 0.12, random.uniform(0.35, 0.5))
    wall = colorsys.hsv_to_rgb(random.random(), 0.10, random.uniform(0.75, 0.9))
    return np.array([floor, wall, (0.12, 0.12, 0.14), (0.80, 0.62, 0.50)], np.float32)


def _free_points(random: np.random.Generator, rooms: Rooms) -> Floats:
    """[P, 2] places where the agent can stand and turn."""
    points = random.uniform(-ARENA, ARENA, (_TRIES, 2))
    return points[is_free(points, rooms.obstacles, AGENT_RADIUS + 0.1, ARENA)]


def _draw_landmark(random: np.random.Generator, rooms: Rooms, task: str) -> EpisodeSample | None:
    """A landmark that is in view, to one side, or behind a wall, as the task says."""
    index = int(random.integers(len(SHAPES)))
    goal = LANDMARKS.start + index
    place = rooms.obstacles.center[goal]
    points = _free_points(random, rooms)
    distance = np.linalg.norm(points - place, axis=-1)
    others = np.array([i for i in range(PERSON) if i != goal])
    in_sight = is_clear(points, place, rooms.obstacles.only(others), 0.0)
    hidden = ~is_clear(points, place, rooms.obstacles.only(WALLS), 0.0)
    near = (distance >= _NEAR) & (distance <= _FAR)
    suited = np.flatnonzero(hidden if task == "search_object" else in_sight & near)
    if not len(suited):
        return None
    point = points[suited[0]]
    field = distance_field(place, rooms.obstacles, rooms.obstacles.only(WALLS))
    if not np.isfinite(distance_from(point, field)):
        return None
    turn = str(random.choice(list(TURNS)))
    heading = math.atan2(*(place - point)[::-1])
    if task == "turn_and_go":
        heading -= TURNS[turn] + random.uniform(-0.35, 0.35)
    elif task == "go_to_landmark":
        heading += random.uniform(-_HALF_VIEW, _HALF_VIEW)
    else:
        heading = random.uniform(-math.pi, math.pi)
    return EpisodeSample(
        start=np.array([*point, wrapped(np.array(heading))]),
        goal=goal,
        walk=np.tile(place, (WALK_STEPS + 1, 1)),
        field=field,
        instruction=TASK_BY_NAME[task].sentence.format(name=rooms.names[index], turn=turn),
    )


def _draw_follow(random: np.random.Generator, rooms: Rooms, task: str) -> EpisodeSample | None:
    """Somebody who sets out from in front of the agent to another place."""
    points = _free_points(random, rooms)
    if len(points) < 3:
        return None
    target, person = points[:2]
    field = distance_field(target, rooms.obstacles, rooms.obstacles.only(WALLS))
    length = distance_from(person, field)
    if not 2.5 <= length <= WALK_STEPS * PERSON_STEP - 0.5:
        return None
    walk = _paced(np.concatenate([[person], way_from(person, field)]))
    distance = np.linalg.norm(points - person, axis=-1)
    behind = is_clear(points, person, rooms.obstacles, CLEARANCE)
    behind &= (distance >= 0.9) & (distance <= 1.8)
    # Not where the person wants to walk.
    behind &= np.linalg.norm(points[:, None] - walk, axis=-1).min(axis=-1) >= 0.85
    if not behind.any():
        return None
    point = points[np.argmax(behind)]
    heading = math.atan2(*(person - point)[::-1]) + random.uniform(-0.4, 0.4)
    return EpisodeSample(
        start=np.array([*point, wrapped(np.array(heading))]),
        goal=PERSON,
        walk=walk,
        field=distance_field(walk[-1], rooms.obstacles, rooms.obstacles.only(WALLS)),
        instruction=TASK_BY_NAME[task].sentence.format(name="person"),
    )


def _paced(way: Floats) -> Floats:
    """[WALK_STEPS + 1, 2] places along a polyline, one for each control step."""
    lengths = np.linalg.norm(np.diff(way, axis=0), axis=-1)
    along = np.concatenate([[0.0], lengths.cumsum()])
    at = np.minimum(np.arange(WALK_STEPS + 1) * PERSON_STEP, along[-1])
    return np.stack([np.interp(at, along, way[:, axis]) for axis in (0, 1)], axis=-1)
