"""The MuJoCo model of the tabletop suite: arm, table, eight objects, and their measures.

World frame: the table's surface is z = 0, the arm's base stands at the origin, x points away from
it over the table, y to its left. All lengths in meters. Leaves out what differs from episode to
episode (`sampling.py`) and how the arm is driven (`control.py`).
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

OBJECTS: tuple[str, ...] = (
    "spoon",
    "carrot",
    "green_block",
    "eggplant",
    "towel",
    "plate",
    "yellow_block",
    "basket",
)
"""Order of the object axis wherever there is one."""
MOVABLE: tuple[str, ...] = ("spoon", "carrot", "green_block", "eggplant", "yellow_block")
FIXED: tuple[str, ...] = ("towel", "plate", "basket")
"""Placed anew in every episode (mocap bodies) but not pushed by the gripper."""

HALF_HEIGHT: dict[str, float] = {
    "spoon": 0.011,
    "carrot": 0.013,
    "green_block": 0.020,
    "eggplant": 0.015,
    "towel": 0.002,
    "plate": 0.005,
    "yellow_block": 0.025,
    "basket": 0.015,
}
"""Height of an object's center over what it lies on; the top is as far above the center."""
CLEARANCE: dict[str, float] = {
    "spoon": 0.050,
    "carrot": 0.050,
    "green_block": 0.046,
    "eggplant": 0.049,
    "towel": 0.062,
    "plate": 0.055,
    "yellow_block": 0.049,
    "basket": 0.072,
}
"""Two centers are never nearer than the sum: an open gripper fits around every source."""
TOWEL_HALF, PLATE_RADIUS, BASKET_HALF, BASKET_WALL = 0.052, 0.052, 0.058, 0.003

SHOULDER_HEIGHT, UPPER_ARM, FOREARM, WRIST_TO_TOOL = 0.20, 0.32, 0.30, 0.17
FINGER_OPEN, FINGER_CLOSED = 0.040, -0.020
"""Finger targets of gripper commands +1 and -1; the negative one is what squeezes."""
FINGER_HALF = 0.006
"""Half the thickness of a finger, whose inner face is at the opening."""
PAD_BELOW_TOOL = 0.010
"""The fingertips reach this far below the tool point."""
SERVO_RATE = 40.0
"""Bandwidth of the arm's servos, 1/s; critically damped for a nominal inertia of each joint."""
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_pitch", "wrist_rotate")

_COLLIDE_FIXED = 'contype="1" conaffinity="0"'
_COLLIDE_MOVABLE = 'contype="2" conaffinity="7"'
_COLLIDE_FINGER = 'contype="4" conaffinity="1"'
_HIDDEN = f'class="hidden" {_COLLIDE_MOVABLE}'

_ARM = f"""
    <body name="base" childclass="arm">
      <geom name="base" type="cylinder" size=".055 .05" pos="0 0 .05" class="arm"/>
      <body name="waist" pos="0 0 0" gravcomp="1">
        <joint name="waist" axis="0 0 1" range="-2.6 2.6"/>
        <geom name="column" type="cylinder" size=".04 .055" pos="0 0 .15" mass=".3" class="arm"/>
        <body name="upper_arm" pos="0 0 {SHOULDER_HEIGHT}" gravcomp="1">
          <joint name="shoulder" axis="0 1 0" range="-2 2"/>
          <geom name="upper_arm" type="capsule" size=".026" fromto="0 0 0 0 0 {UPPER_ARM}" mass=".3"
            class="arm"/>
          <body name="forearm" pos="0 0 {UPPER_ARM}" gravcomp="1">
            <joint name="elbow" axis="0 1 0" range="-1.3 2.2"/>
            <geom name="elbow" type="sphere" size=".03" mass=".1" class="arm"/>
            <body name="forearm_link" gravcomp="1">
              <joint name="forearm_roll" axis="1 0 0" range="-3 3"/>
              <geom name="forearm" type="capsule" size=".022" fromto="0 0 0 {FOREARM} 0 0"
                mass=".2" class="arm"/>
              <body name="wrist" pos="{FOREARM} 0 0" gravcomp="1">
                <joint name="wrist_pitch" axis="0 1 0" range="-2.4 2.4"/>
                <geom name="wrist_joint" type="sphere" size=".024" mass=".05" class="arm"/>
                <body name="hand" gravcomp="1">
                  <joint name="wrist_rotate" axis="1 0 0" range="-4.5 4.5"/>
                  <geom name="wrist" type="capsule" size=".02" fromto="0 0 0 .08 0 0" mass=".1"
                    class="arm"/>
                  <geom name="palm" type="box" size=".012 .05 .016" pos=".105 0 0" mass=".05"
                    class="arm"/>
                  <site name="tool" pos="{WRIST_TO_TOOL} 0 0" group="4"/>
                  <body name="left_finger" pos="{WRIST_TO_TOOL} {FINGER_HALF} 0" gravcomp="1">
                    <joint name="left_finger" class="finger" axis="0 1 0"/>
                    <geom name="left_finger" class="finger"/>
                  </body>
                  <body name="right_finger" pos="{WRIST_TO_TOOL} -{FINGER_HALF} 0" gravcomp="1">
                    <joint name="right_finger" class="finger" axis="0 -1 0"/>
                    <geom name="right_finger" class="finger"/>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
"""

_MOVABLE_BODIES = f"""
    <body name="spoon" pos="0 0 1"><freejoint/>
      <geom {_HIDDEN} type="box" size=".042 .010 .011" mass=".10"/>
      <geom name="spoon" type="box" size=".040 .008 .010" pos="-.002 0 0" class="looks"/>
      <geom name="spoon_bowl" type="ellipsoid" size=".021 .017 .011" pos=".032 0 0" class="looks"/>
    </body>
    <body name="carrot" pos="0 0 2"><freejoint/>
      <geom {_HIDDEN} type="box" size=".040 .012 .013" mass=".10"/>
      <geom name="carrot" type="ellipsoid" size=".042 .015 .014" class="looks"/>
      <geom name="carrot_leaf" type="box" size=".009 .007 .008" pos=".045 0 0" class="looks"/>
    </body>
    <body name="green_block" pos="0 0 3"><freejoint/>
      <geom name="green_block" {_COLLIDE_MOVABLE} type="box" size=".02 .02 .02" mass=".10"/>
    </body>
    <body name="eggplant" pos="0 0 4"><freejoint/>
      <geom {_HIDDEN} type="box" size=".034 .014 .015" mass=".10"/>
      <geom name="eggplant" type="ellipsoid" size=".038 .019 .017" class="looks"/>
      <geom name="eggplant_stem" type="box" size=".008 .006 .007" pos=".040 0 0" class="looks"/>
    </body>
    <body name="yellow_block" pos="0 0 5"><freejoint/>
      <geom name="yellow_block" {_COLLIDE_MOVABLE} type="box" size=".025 .025 .025" mass=".12"/>
    </body>
"""


def _basket_walls() -> str:
    """Four walls around the basket's floor, all children of its body."""
    outer, half_wall, rows = BASKET_HALF, BASKET_WALL, []
    for index, (x, y) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
        center = f"{x * (outer - half_wall)} {y * (outer - half_wall)} 0"
        size = (half_wall, outer, 0.015) if x else (outer, half_wall, 0.015)
        rows.append(
            f'<geom name="basket_wall{index}" {_COLLIDE_FIXED} type="box" pos="{center}"'
            f' size="{size[0]} {size[1]} {size[2]}"/>'
        )
    return "".join(rows)


def _fixed_bodies() -> str:
    octagon = f"{PLATE_RADIUS} {PLATE_RADIUS * math.tan(math.pi / 8)} .005"
    sides = "".join(
        f'<geom class="hidden" {_COLLIDE_FIXED} type="box" size="{octagon}" euler="0 0 {angle}"/>'
        for angle in (0, 45, 90, 135)
    )
    return f"""
    <body name="towel" mocap="true"><geom name="towel" {_COLLIDE_FIXED} type="box"
      size="{TOWEL_HALF} {TOWEL_HALF} .002"/></body>
    <body name="plate" mocap="true">{sides}
      <geom name="plate" type="cylinder" size="{PLATE_RADIUS} .005" class="looks"/></body>
    <body name="basket" mocap="true"><geom name="basket" {_COLLIDE_FIXED} type="box"
      size="{BASKET_HALF} {BASKET_HALF} .002" pos="0 0 -.013"/>{_basket_walls()}</body>
    """


def build_xml() -> str:
    """The MJCF of the suite. Collision-only geoms are in group 3, which no camera sees."""
    servos = "".join(
        f'<position name="{name}" joint="{name}" kp="{inertia * SERVO_RATE**2}"'
        f' kv="{2 * inertia * SERVO_RATE}"/>'
        for name, inertia in zip(ARM_JOINTS, (0.2, 0.3, 0.2, 0.1, 0.1, 0.1), strict=True)
    )
    touches = "".join(
        f'<contact name="touch_{name}" subtree1="hand" body2="{name}" num="1" data="found"/>'
        for name in OBJECTS[:4]
    )
    return f"""<mujoco model="tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep=".01" integrator="implicitfast" cone="pyramidal" iterations="6"
    ls_iterations="6" tolerance="1e-6"/>
  <size memory="2M"/>
  <default>
    <geom friction="0.9 .01 .001" solref=".02 1" solimp=".97 .99 .001"/>
    <default class="arm"><geom contype="0" conaffinity="0" group="1"/>
      <joint armature=".1" damping=".2"/></default>
    <default class="looks"><geom contype="0" conaffinity="0" mass="0" group="0"/></default>
    <default class="hidden"><geom group="3"/></default>
    <default class="finger">
      <joint type="slide" range="0 {FINGER_OPEN}" armature=".3" damping="1"
        solimplimit=".97 .99 .001"/>
      <geom {_COLLIDE_FINGER} type="box" size=".027 {FINGER_HALF} .011" pos="-.017 0 0" mass=".02"
        group="1" friction="1.5 .02 .001" condim="4"/>
      <position kp="300" kv="15" ctrlrange="{FINGER_CLOSED} {FINGER_OPEN}"/>
    </default>
  </default>
  <worldbody>
    <geom name="table" type="plane" size=".8 .9 .1" pos=".35 0 0" {_COLLIDE_FIXED}/>
    {_ARM}{_MOVABLE_BODIES}{_fixed_bodies()}
  </worldbody>
  <actuator>{servos}
    <position name="left_finger" joint="left_finger" class="finger"/>
    <position name="right_finger" joint="right_finger" class="finger"/>
  </actuator>
  <sensor>{touches}</sensor>
</mujoco>"""


def build_model() -> mujoco.MjModel:
    """Compile `build_xml`."""
    return mujoco.MjModel.from_xml_string(build_xml())


def arm_configuration(tool: NDArray[np.float64]) -> NDArray[np.float64]:
    """Closed-form joint angles [..., 6] that hold the tool pointing down at a pose.

    Args:
        tool: [..., 4] tool point x, y, z and yaw of the gripper.
    """
    x, y, z, yaw = np.moveaxis(np.asarray(tool, np.float64), -1, 0)
    radius, rise = np.hypot(x, y), z + WRIST_TO_TOOL - SHOULDER_HEIGHT
    distance = np.hypot(radius, rise)
    cosine = (UPPER_ARM**2 + distance**2 - FOREARM**2) / (2 * UPPER_ARM * distance)
    elevation = np.arctan2(rise, radius) + np.arccos(np.clip(cosine, -1, 1))
    shoulder = np.pi / 2 - elevation
    forearm_elevation = np.arctan2(
        rise - UPPER_ARM * np.sin(elevation), radius - UPPER_ARM * np.cos(elevation)
    )
    elbow = -forearm_elevation - shoulder
    waist = np.arctan2(y, x)
    pitch = np.pi / 2 - shoulder - elbow
    return np.stack([waist, shoulder, elbow, np.zeros_like(waist), pitch, waist - yaw], axis=-1)
