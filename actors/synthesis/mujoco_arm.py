"""An arm and its surroundings as a MuJoCo model: the audit's own kinematics and collisions.

Written from the arm's file alone: it shares no computation with `vlarl.synthesis.kinematics` and
`vlarl.synthesis.collision`, so that a mistake there is seen here.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.scene import OBSTACLE, OTHER, TARGET

TABLE = "table"
THINGS = {TARGET: "target", OTHER: "other", OBSTACLE: "obstacle"}
_AWAY = 50.0


@dataclass(frozen=True)
class Contact:
    """Two bodies that are inside one another."""

    first: str
    second: str
    depth: float
    """Meters."""


class MujocoArm:
    """One arm above a table with up to three things, posed by hand; nothing is simulated."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.model = mujoco.MjModel.from_xml_string(_xml(arm))
        self.data = mujoco.MjData(self.model)
        body = self.model.geom_bodyid
        self._bodies = [self.model.body(index).name or TABLE for index in range(self.model.nbody)]
        self.geom_names = [self._bodies[index] for index in body]
        self._things = {
            slot: (arm.joints + 7 * place, int(self.model.body(name).geomadr[0]))
            for place, (slot, name) in enumerate(THINGS.items())
        }

    def tool_pose(self, q: Floats) -> tuple[Floats, Floats]:
        """Position [3] and rotation matrix [3, 3] of the tool at joint positions [n]."""
        self.data.qpos[: self.arm.joints] = q
        mujoco.mj_kinematics(self.model, self.data)
        site = self.data.site("tcp")
        return site.xpos.copy(), site.xmat.reshape(3, 3).copy()

    def set_size(self, slot: int, radius: float, height: float) -> None:
        """Make a thing a cylinder of this size, or take it away if the radius is zero."""
        _, geom = self._things[slot]
        half = max(height, 1e-3) / 2
        radius = max(radius, 1e-3)
        self.model.geom_size[geom] = [radius, half, 0]
        self.model.geom_rbound[geom] = np.hypot(radius, half)
        self.model.geom_aabb[geom] = [0, 0, 0, radius, radius, half]

    def set_place(self, slot: int, foot: Floats | None) -> None:
        """Put the middle of a thing's foot [3] somewhere; None takes it away."""
        first, geom = self._things[slot]
        # Away from the table and, by their number, from one another.
        away = np.array([_AWAY, _AWAY * slot, _AWAY])
        place = away if foot is None else np.asarray(foot, np.float64)
        self.data.qpos[first : first + 3] = place
        self.data.qpos[first + 2] += self.model.geom_size[geom, 1]

    def contacts(self, q: Floats, allowed: NDArray[np.bool_], tolerance: float) -> list[Contact]:
        """Bodies inside one another by more than `tolerance`, but for allowed pairs of geoms."""
        self.data.qpos[: self.arm.joints] = q
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        if not self.data.ncon:
            return []
        geoms, depths = self.data.contact.geom, -self.data.contact.dist
        bad = (depths > tolerance) & ~allowed[geoms[:, 0], geoms[:, 1]]
        return [
            Contact(self.geom_names[a], self.geom_names[b], float(depth))
            for (a, b), depth in zip(geoms[bad], depths[bad], strict=True)
        ]

    def allowed(self, pairs: set[tuple[str, str]]) -> NDArray[np.bool_]:
        """[geoms, geoms] for pairs of bodies that may touch; "arm" means every link."""
        count = self.model.ngeom
        found = np.zeros((count, count), np.bool_)
        for a in range(count):
            for b in range(count):
                one, two = self.geom_names[a], self.geom_names[b]
                kinds = {(x, y) for x in _kinds(one) for y in _kinds(two)}
                found[a, b] = bool(kinds & pairs)
        return found | found.T


def _kinds(name: str) -> set[str]:
    """A body's name, and "arm" for links."""
    return {name, "arm"} if name not in (TABLE, *THINGS.values()) else {name}


def _xml(arm: Arm) -> str:
    """The model. Bodies: base, link1 ... linkn, tool, and a free one for each thing."""
    names = ["base", *(f"link{index + 1}" for index in range(arm.joints)), "tool"]
    geoms: dict[int, str] = dict.fromkeys(range(len(names)), "")
    for capsule in arm.capsules:
        ends = " ".join(f"{value:.9g}" for value in (*capsule.start, *capsule.end))
        geoms[capsule.link] += f'<geom type="capsule" fromto="{ends}" size="{capsule.radius}"/>'
    chain = (
        f'<body name="tool" {_place(arm.tool_origin, arm.tool_rotation)}>{geoms[arm.joints + 1]}'
        f'<site name="tcp" pos="0 0 {arm.tcp}"/></body>'
    )
    for joint in reversed(range(arm.joints)):
        place = _place(arm.origins[joint], arm.rotations[joint])
        chain = (
            f'<body name="link{joint + 1}" {place}>'
            f'<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'
            f'<joint type="hinge" axis="0 0 1"/>{geoms[joint + 1]}{chain}</body>'
        )
    # Free bodies, not fixed ones: MuJoCo looks for no contacts between bodies that cannot move.
    things = "".join(
        f'<body name="{name}"><freejoint/><geom type="cylinder" size="0.01 0.01"/></body>'
        for name in THINGS.values()
    )
    apart = [("base", "link1"), *((names[a], names[b]) for a, b in arm.touching)]
    excluded = "".join(f'<exclude body1="{a}" body2="{b}"/>' for a, b in apart)
    # The base stands on the table. The plane is a body of its own so that it can be excluded.
    return (
        f'<mujoco><worldbody><body name="{TABLE}"><geom type="plane" size="5 5 1"/></body>'
        f'<body name="base">{geoms[0]}{chain}</body>{things}</worldbody>'
        f'<contact>{excluded}<exclude body1="base" body2="{TABLE}"/></contact></mujoco>'
    )


def _place(origin: Floats, rotation: Floats) -> str:
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    numbers = [" ".join(f"{value:.12g}" for value in values) for values in (origin, quaternion)]
    return f'pos="{numbers[0]}" quat="{numbers[1]}"'
