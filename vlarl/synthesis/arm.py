"""An arm as data: joints, limits, tool, capsules. Read from `configs/arms/*.yaml`.

Frames: link 0 is the base, link `i` turns with joint `i` about its z axis, and `tool` is the frame
of the gripper whose z axis points out of it and whose fingers close along y. The base stands on the
table: the world's z = 0 is the table's top, x points away from the robot, y to its left.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlarl.config.paths import configs_folder, read_yaml
from vlarl.errors import ConfigError

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` of a segment, fixed to a link."""

    link: int
    """0 for the base, 1 to n for the links, n + 1 for the tool."""
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float


@dataclass(frozen=True)
class Arm:
    """One arm with `n` joints and a parallel gripper; meters, radians, seconds."""

    name: str
    robot_tag: str
    """How instructions and prompts name it."""
    origins: Floats
    """[n, 3] of each joint in the frame of the link before it."""
    rotations: Floats
    """[n, 3, 3] of the same frames at joint position zero."""
    tool_origin: Floats
    """[3] of the gripper's mount in the last link."""
    tool_rotation: Floats
    """[3, 3]"""
    tcp: float
    """From the mount to the point between the fingertips, along the tool's z axis."""
    opening: float
    """Between the fingers when open."""
    low: Floats
    """[n]"""
    high: Floats
    """[n]"""
    velocity: Floats
    """[n] largest speed of each joint."""
    acceleration: Floats
    """[n] largest acceleration of each joint."""
    acceleration_published: bool
    """Whether the maker states it; else it is a working bound."""
    posture: Floats
    """[n] comfortable, with the tool pointing down in front of the robot."""
    reach_radius: tuple[float, float]
    """Distance from the base's axis within which objects stand on the table."""
    reach_angle: float
    """They stand within this angle to either side of the x axis."""
    reach_height: tuple[float, float]
    """Heights of the tool's point where trajectories begin."""
    capsules: tuple[Capsule, ...]
    touching: frozenset[tuple[int, int]]
    """Pairs of links, beyond neighbors, that are built so close that they are not checked."""

    @property
    def joints(self) -> int:
        """`n`."""
        return len(self.low)

    def self_pairs(self) -> list[tuple[int, int]]:
        """Pairs of capsules that must not meet: not of one link, of neighbors, or touching."""
        pairs = []
        for first, one in enumerate(self.capsules):
            for second in range(first + 1, len(self.capsules)):
                a, b = sorted((one.link, self.capsules[second].link))
                if self.may_meet(a, b):
                    pairs.append((first, second))
        return pairs

    def may_meet(self, a: int, b: int) -> bool:
        """Whether links `a` < `b` could collide; the tool is rigid with the last link."""
        rigid = self.joints
        return min(b, rigid) - min(a, rigid) >= 2 and (a, b) not in self.touching


def arm_names() -> list[str]:
    """Names of the shipped arms."""
    return sorted(path.stem for path in (configs_folder() / "arms").glob("*.yaml"))


def load_arm(name: str) -> Arm:
    """The shipped arm of this name.

    Raises:
        ConfigError: for an unknown name (listing the allowed ones), or a file that is wrong (naming
            file, field, value and remedy).
    """
    names = arm_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        remedy = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"unknown robot {name!r}; allowed: {', '.join(names)}.{remedy}")
    path = configs_folder() / "arms" / f"{name}.yaml"
    return read_arm(path)


def read_arm(path: Path) -> Arm:
    """An arm from a YAML file.

    Raises:
        ConfigError: as `load_arm`.
    """
    values = read_yaml(path)
    try:
        arm = _arm(path.stem, values)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {type(error).__name__} {error}. See configs/arms.") from error
    for field, value, remedy in _problems(arm):
        raise ConfigError(f"{path}: {field}: {value}. {remedy}")
    return arm


def _arm(name: str, values: dict[str, Any]) -> Arm:
    joints, tool, reach = values["joints"], values["tool"], values["reach"]
    count = len(joints)
    links = {"tool": count + 1}

    def column(key: str) -> Floats:
        return np.array([float(joint[key]) for joint in joints])

    return Arm(
        name=name,
        robot_tag=str(values["robot_tag"]),
        origins=np.array([joint["origin"] for joint in joints], np.float64),
        rotations=np.stack([_rotation(joint["rpy_deg"]) for joint in joints]),
        tool_origin=np.array(tool["origin"], np.float64),
        tool_rotation=_rotation(tool["rpy_deg"]),
        tcp=float(tool["tcp"]),
        opening=float(tool["opening"]),
        low=column("low"),
        high=column("high"),
        velocity=column("velocity"),
        acceleration=column("acceleration"),
        acceleration_published=bool(values["acceleration_published"]),
        posture=np.array(values["posture"], np.float64),
        reach_radius=_pair(reach["radius"]),
        reach_angle=float(reach["angle"]),
        reach_height=_pair(reach["height"]),
        capsules=tuple(
            Capsule(
                link=int(links.get(each["link"], each["link"])),
                start=_triple(each["start"]),
                end=_triple(each["end"]),
                radius=float(each["radius"]),
            )
            for each in values["capsules"]
        ),
        touching=frozenset(
            (int(links.get(a, a)), int(links.get(b, b))) for a, b in values["touching"]
        ),
    )


def _problems(arm: Arm) -> list[tuple[str, str, str]]:
    """Field, what is wrong, remedy."""
    found = []
    if arm.posture.shape != arm.low.shape:
        found.append(("posture", f"{len(arm.posture)} values", f"It needs {arm.joints}."))
    elif not ((arm.low < arm.posture) & (arm.posture < arm.high)).all():
        found.append(("posture", f"{arm.posture.tolist()}", "Keep it within the joint limits."))
    found += [
        (f"joints.{field}", "not above zero", "State each limit as positive.")
        for field in ("velocity", "acceleration")
        if not (getattr(arm, field) > 0).all()
    ]
    for field, (low, high) in (("radius", arm.reach_radius), ("height", arm.reach_height)):
        if not 0 < low < high:
            found.append((f"reach.{field}", f"[{low}, {high}]", "Give two rising numbers above 0."))
    if not all(0 <= capsule.link <= arm.joints + 1 for capsule in arm.capsules):
        allowed = f"Allowed: 0 to {arm.joints}, and tool."
        found.append(("capsules.link", "no such link", allowed))
    return found


def _rotation(rpy_deg: list[float]) -> Floats:
    """Rz(yaw) Ry(pitch) Rx(roll) from degrees; multiples of 90 degrees are exact."""
    roll, pitch, yaw = (_exact(float(angle)) for angle in rpy_deg)
    x = np.array([[1, 0, 0], [0, roll[0], -roll[1]], [0, roll[1], roll[0]]])
    y = np.array([[pitch[0], 0, pitch[1]], [0, 1, 0], [-pitch[1], 0, pitch[0]]])
    z = np.array([[yaw[0], -yaw[1], 0], [yaw[1], yaw[0], 0], [0, 0, 1]])
    return np.asarray(z @ y @ x + 0.0)


def _exact(degrees: float) -> tuple[float, float]:
    """Cosine and sine."""
    if degrees % 90 == 0:
        return [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][int(degrees // 90) % 4]
    return float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))


def _pair(values: list[float]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _triple(values: list[float]) -> tuple[float, float, float]:
    x, y, z = values
    return float(x), float(y), float(z)
