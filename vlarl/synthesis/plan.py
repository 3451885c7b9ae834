"""What the tool does in each template, as stages through which it passes.

A stage ends in a pose and is either a straight line, a transfer (which keeps its distance to the
robot's own axis: a curve around it and over the table), or a motion of the fingers alone. Stages
know which thing is held and where the others stand, for the check of collisions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.inverse_kinematics import posture_yaw
from vlarl.synthesis.pose import Poses
from vlarl.synthesis.scene import GOALS, OTHER, TARGET, Scene
from vlarl.synthesis.vocabulary import headings

DETOURS = ((0.0, 0.0), (0.08, 0.24), (0.08, -0.24), (0.28, 0.0))
"""How far transfers rise above the direct one and pass to its left: tried in turn (m)."""
VARIATION = 12
"""Numbers from 0 to 1 that a trajectory's manner is drawn from."""
FREE, LINE, GRIP = "free", "line", "grip"
GRIP_STEPS = 12
FINGER = 0.012
"""Half the thickness of the closed fingers, along a push."""
PUSH_GAP = 0.012
"""Between the fingers and what they are going to push."""
AWAY = 100.0
"""Where things stand that are not in a scene."""
_SPEEDS = {FREE: 1.1, LINE: 0.5, GRIP: 1.0}


@dataclass(frozen=True)
class Stage:
    """One motion of `N` trajectories, from the end of the stage before."""

    kind: str
    """`FREE`, `LINE` or `GRIP`."""
    end: Poses
    gripper: Floats
    """[N] at the end: 0 open, 1 closed."""
    speed: float
    """The tool's largest, m/s, at the normal pace."""
    held: int
    """The thing in the gripper, or -1."""
    standing: tuple[tuple[int, Floats], ...]
    """Things that must not be touched, and where they are [N, 3]."""


@dataclass(frozen=True)
class Plan:
    """The stages of `N` trajectories of one template."""

    start: Poses
    gripper: Floats
    """[N] at the start."""
    stages: tuple[Stage, ...]
    bump: Floats
    """[N] meters by which transfers rise in the middle."""
    bend: float
    """Meters by which they pass to the left in the middle."""
    pace: Floats
    """[N] relative to the normal speed."""
    grasp_height: Floats
    """[N, 2] of the tool above the foot of target and other thing, where it holds them."""


def make_plan(arm: Arm, template: str, scene: Scene, variation: Floats, detour: int) -> Plan:
    """The stages for each scene.

    Args:
        arm: whose reach, tool and posture count.
        template: one of `TEMPLATES`.
        scene: `N` scenes of it.
        variation: [N, VARIATION] from 0 to 1; the same numbers make the same motion.
        detour: index into `DETOURS`.
    """
    script = _Script(arm, scene, variation, template)
    _SCRIPTS[template](script)
    rise, bend = DETOURS[detour]
    return Plan(
        start=script.start,
        gripper=script.first_gripper,
        stages=tuple(script.stages),
        bump=rise + 0.07 * variation[:, 5],
        bend=bend,
        pace=_pace(variation[:, 6]),
        grasp_height=script.grasp_height,
    )


def _pace(share: Floats) -> Floats:
    """One in eight slow, one in four fast, the others about normal."""
    return np.where(share < 0.125, 0.38, np.where(share > 0.75, 1 + share, 0.9 + 0.6 * share))


class _Script:
    """Writes the stages down, keeping count of where tool and things are."""

    def __init__(self, arm: Arm, scene: Scene, variation: Floats, template: str) -> None:
        self.arm, self.scene, self.variation = arm, scene, variation
        self.rest_yaw = posture_yaw(arm)
        # Low enough to hold the thing, high enough that fingers that lean stay off the table.
        self.lean = 0.2 * np.where(variation[:, :2] < 0.3, 0, 2 * variation[:, :2] - 1)
        lowest = 0.024 + 0.06 * np.abs(self.lean).sum(axis=1)
        share = 0.4 + 0.35 * variation[:, 2]
        heights = scene.height[:, :2] * share[:, None]
        self.grasp_height = np.maximum(heights, lowest[:, None])
        self.rise = 0.06 + 0.1 * variation[:, 3]
        self.carry = 0.05 + 0.22 * variation[:, 4] ** 2
        self.places = [scene.position[:, slot] for slot in range(3)]
        self.absent = scene.radius == 0
        self.held = -1
        self.stages: list[Stage] = []
        self.start = self._first_pose()
        self.now = self.start
        closed = template == "push"
        self.first_gripper = self.gripper = np.full(len(scene), float(closed))

    def _first_pose(self) -> Poses:
        low, high = self.arm.reach_radius
        target = self.scene.position[:, TARGET]
        aside = np.arctan2(target[:, 1], target[:, 0]) + 1.6 * (self.variation[:, 7] - 0.5)
        angle = np.clip(aside, -self.arm.reach_angle, self.arm.reach_angle)
        radius = low + (high - low) * (0.15 + 0.7 * self.variation[:, 8])
        bottom, top = self.arm.reach_height
        height = bottom + (top - bottom) * self.variation[:, 9]
        position = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
        yaw = angle + self.rest_yaw + 2 * (self.variation[:, 10] - 0.5)
        return Poses(position, yaw, 0.5 * (self.variation[:, [11, 10]] - 0.5))

    def at_ease(self, place: Floats, turn: Floats) -> Floats:
        """[N] the yaw of the tool at a place, turned from the comfortable one."""
        return np.asarray(np.arctan2(place[:, 1], place[:, 0]) + self.rest_yaw + turn)

    def above(self, place: Floats, height: Floats) -> Floats:
        """[N, 3] the place, higher."""
        return place + height[:, None] * np.array([0, 0, 1.0])

    def add(self, kind: str, end: Poses, ignored: tuple[int, ...] = (), speed: float = 0.0) -> None:
        """One more stage; things named in `ignored`, and what is held, may be near."""
        standing = tuple(
            (slot, np.where(self.absent[:, slot, None], AWAY, self.places[slot]))
            for slot in range(3)
            if slot != self.held and slot not in ignored and not self.absent[:, slot].all()
        )
        speed = speed or _SPEEDS[kind]
        self.stages.append(Stage(kind, end, self.gripper, speed, self.held, standing))
        self.now = end

    def free(self, position: Floats, yaw: Floats, lean: Floats | None = None) -> None:
        """A transfer."""
        self.add(FREE, Poses(position, yaw, self.now.lean if lean is None else lean))

    def line(
        self, position: Floats, *ignored: int, yaw: Floats | None = None, speed: float = 0
    ) -> None:
        """A straight line."""
        end = Poses(position, self.now.yaw if yaw is None else yaw, self.now.lean)
        self.add(LINE, end, ignored, speed)

    def grip(self, closed: Floats, slot: int) -> None:
        """The fingers alone, at the thing in `slot`."""
        self.gripper = closed
        self.add(GRIP, self.now, tuple(range(3)))
        self.held = -1 if self.held == slot else slot

    def width(self, slot: int) -> Floats:
        """[N] the gripper's closedness around a thing."""
        return np.clip(1 - 2 * self.scene.radius[:, slot] / self.arm.opening, 0, 1)

    def pick(self, slot: int, turn: Floats, lift: bool = True) -> None:
        """Go over a thing, down, take it, and lift it."""
        grasp = self.above(self.places[slot], self.grasp_height[:, slot])
        yaw = self.at_ease(self.places[slot], turn)
        clear = self.scene.height[:, slot] - self.grasp_height[:, slot] + self.rise
        self.free(self.above(grasp, clear), yaw, self.lean)
        self.line(grasp, slot)
        self.grip(self.width(slot), slot)
        if lift:
            self.line(self.above(grasp, self.carry))

    def put(self, slot: int, place: Floats, yaw: Floats) -> None:
        """Carry what is held over a place, down, let go, and leave upwards."""
        release = self.above(place, self.grasp_height[:, slot])
        receives = self.scene.goal == GOALS.index("receive")
        self.free(self.above(release, self.carry + receives * self.scene.height[:, OTHER]), yaw)
        # What receives the thing is near it from here on.
        self.absent[:, OTHER] |= receives
        self.line(release)
        self.places[slot] = place
        self.leave(slot)

    def leave(self, slot: int) -> None:
        """Let go of a thing and go up from it."""
        self.grip(np.zeros(len(self.scene)), slot)
        clear = self.scene.height[:, slot] - self.grasp_height[:, slot] + self.rise
        self.line(self.above(self.now.position, clear), slot)


def _carry(script: _Script) -> None:
    scene = script.scene
    script.pick(TARGET, scene.tool_turn)
    yaw = script.now.yaw + scene.turn
    script.put(TARGET, scene.final_position[:, TARGET], yaw)


def _rotate_toward(script: _Script) -> None:
    scene = script.scene
    place = scene.position[:, TARGET]
    script.pick(TARGET, scene.tool_turn)
    script.line(script.now.position, yaw=script.now.yaw + scene.turn)
    script.line(script.above(place, script.grasp_height[:, TARGET]))
    script.leave(TARGET)


def _push(script: _Script) -> None:
    scene = script.scene
    start, end = scene.position[:, TARGET], scene.final_position[:, TARGET]
    angle = headings(scene.direction, start)
    ahead = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    contact = ahead * (scene.radius[:, TARGET] + FINGER)[:, None]
    low = np.minimum(
        script.grasp_height[:, TARGET], np.maximum(0.6 * scene.height[:, TARGET], 0.024)
    )
    low = np.maximum(low, 0.024 + 0.06 * np.abs(script.lean).sum(axis=1))
    behind = script.above(start - contact - PUSH_GAP * ahead, low)
    yaw = script.at_ease(start, scene.tool_turn)
    script.free(script.above(behind, scene.height[:, TARGET] + script.rise), yaw, script.lean)
    script.line(behind, TARGET)
    script.line(script.above(end - contact, low), TARGET, speed=0.4)
    script.places[TARGET] = end
    script.line(script.now.position - 0.02 * ahead, TARGET)
    script.line(script.above(script.now.position, scene.height[:, TARGET] + script.rise), TARGET)


def _pull(script: _Script) -> None:
    scene = script.scene
    script.pick(TARGET, scene.tool_turn, lift=False)
    end = script.above(scene.final_position[:, TARGET], script.grasp_height[:, TARGET])
    script.line(end, speed=0.4)
    script.places[TARGET] = scene.final_position[:, TARGET]
    script.leave(TARGET)


def _swap(script: _Script) -> None:
    scene = script.scene
    first, second = scene.position[:, TARGET], scene.position[:, OTHER]
    for slot, place in ((TARGET, scene.resting), (OTHER, first), (TARGET, second)):
        script.pick(slot, scene.tool_turn)
        script.put(slot, place, script.at_ease(place, scene.tool_turn))


_SCRIPTS: dict[str, Callable[[_Script], None]] = {
    "pick_place": _carry,
    "rotate_reposition": _carry,
    "rotate_toward": _rotate_toward,
    "push": _push,
    "pull": _pull,
    "swap": _swap,
}
