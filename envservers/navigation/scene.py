"""The MuJoCo model of the navigation suite: rooms, landmarks, somebody to follow; and their sizes.

World frame: the floor is z = 0, the square room is centered at the origin, x and y along its walls.
All lengths in meters. Nothing has physics: bodies are put where `sampling.py` says, MuJoCo only
casts the rays. Leaves out what differs from episode to episode.
"""

from __future__ import annotations

import mujoco
import numpy as np

ARENA = 3.0
"""Half the width of the square that the outer walls enclose."""
WALL_HEIGHT, WALL_HALF, PANEL_HALF = 1.2, 0.05, 0.5
PANELS = 6
"""Panels, each as long as a door is wide, of one inner wall from side to side."""
SHAPES: tuple[str, ...] = ("pillar", "pillar", "box", "box", "ball", "ball")
"""Order of the landmarks wherever there is such an axis."""
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.62, 0.16),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.92, 0.82, 0.10),
    "purple": (0.55, 0.15, 0.68),
    "orange": (0.95, 0.50, 0.08),
}
PILLAR_RADIUS, PILLAR_HALF, BOX_HALF, BALL_RADIUS = 0.15, 0.5, 0.22, 0.25
PERSON_RADIUS, PERSON_HEIGHT = 0.18, 1.0
HALF: dict[str, tuple[float, float]] = {
    "pillar": (0.0, 0.0),
    "box": (BOX_HALF, BOX_HALF),
    "ball": (0.0, 0.0),
}
"""Half sizes of a landmark's rectangle on the floor."""
RADIUS: dict[str, float] = {"pillar": PILLAR_RADIUS, "box": 0.0, "ball": BALL_RADIUS}
"""Of the rounding of that rectangle."""
CENTER_HEIGHT: dict[str, float] = {"pillar": PILLAR_HALF, "box": BOX_HALF, "ball": BALL_RADIUS}
AWAY = np.array([0.0, 0.0, -50.0])
"""Where what a scene has not is put: below the floor, which hides it."""
PARKED = 100.0
"""Where, on the plane, what a scene has not is an obstacle to nobody."""

AGENT_RADIUS = 0.20
CAMERA_HEIGHT, CAMERA_PITCH, FIELD_OF_VIEW = 0.60, 0.12, 90.0
"""Meters; downwards slope of the line of sight; degrees."""

_GEOMS = {
    "pillar": f'type="cylinder" size="{PILLAR_RADIUS} {PILLAR_HALF}"',
    "box": f'type="box" size="{BOX_HALF} {BOX_HALF} {BOX_HALF}"',
    "ball": f'type="sphere" size="{BALL_RADIUS}"',
}


def build_xml() -> str:
    """The MJCF of the suite."""
    outer, middle = ARENA + WALL_HALF, WALL_HEIGHT / 2
    walls = "".join(
        f'<geom name="outer{index}" type="box" pos="{x * outer} {y * outer} {middle}"'
        f' size="{WALL_HALF if x else outer} {outer if x else WALL_HALF} {middle}"/>'
        for index, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1)))
    )
    panels = ""
    for name, size in (("across", (WALL_HALF, PANEL_HALF)), ("along", (PANEL_HALF, WALL_HALF))):
        for index in range(PANELS):
            panels += (
                f'<body name="{name}{index}" mocap="true"><geom name="{name}{index}" type="box"'
                f' size="{size[0]} {size[1]} {middle}" pos="0 0 {middle}"/></body>'
            )
    landmarks = "".join(
        f'<body name="landmark{index}" mocap="true"><geom name="landmark{index}" {_GEOMS[shape]}'
        f' pos="0 0 {CENTER_HEIGHT[shape]}"/></body>'
        for index, shape in enumerate(SHAPES)
    )
    top = PERSON_HEIGHT - PERSON_RADIUS
    person = (
        '<body name="person" mocap="true">'
        f'<geom name="person" type="capsule" size="{PERSON_RADIUS}"'
        f' fromto="0 0 {PERSON_RADIUS} 0 0 {top}"/>'
        f'<geom name="head" type="sphere" size=".14" pos="0 0 {PERSON_HEIGHT + 0.1}"/></body>'
    )
    return f"""<mujoco model="navigation"><worldbody>
    <geom name="floor" type="plane" size="{outer} {outer} .1"/>
    {walls}{panels}{landmarks}{person}
    </worldbody></mujoco>"""


def build_model() -> mujoco.MjModel:
    """Compile `build_xml`."""
    return mujoco.MjModel.from_xml_string(build_xml())
