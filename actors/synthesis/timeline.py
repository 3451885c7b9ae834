"""Where every thing of a trajectory is at each step and what may touch it, as the records tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlarl.synthesis.arm import Floats
from vlarl.synthesis.observation import Observation, grasp_steps
from vlarl.synthesis.plan import PUSH_GAP
from vlarl.synthesis.scene import GOALS, OTHER, TARGET
from vlarl.synthesis.shard import Trajectory

HANDLED = {"swap": (TARGET, OTHER, TARGET)}
"""The thing that each grasp takes, where it is not the target alone."""


@dataclass(frozen=True)
class Handling:
    """One grasp: steps of a trajectory."""

    slot: int
    near: int
    """From here the tool goes down to the thing."""
    taken: int
    released: int
    done: int
    """Here the tool has left it."""
    lowering: int
    """From here the thing is brought to its place."""


def handlings(trajectory: Trajectory) -> list[Handling]:
    """The grasps in order; a push counts as one that carries nothing."""
    ends = trajectory.segment_ends.astype(np.int64)
    if trajectory.template == "push":
        near, first, last = (int(end) for end in ends[:3])
        return [Handling(TARGET, near, first, last, int(ends[-1]), first)]
    found = []
    slots = HANDLED.get(trajectory.template, (TARGET,))
    for slot, (taken, released) in zip(slots, grasp_steps(trajectory.gripper), strict=False):
        # The fingers close in one segment; the one before it goes down, the one after opening up.
        closing = int(np.searchsorted(ends, taken))
        opening = int(np.searchsorted(ends, released, side="right"))
        near = int(ends[closing - 2]) if closing >= 2 else 0
        done = int(ends[min(opening + 1, len(ends) - 1)])
        lowering = int(ends[opening - 2]) if opening >= 2 else 0
        found.append(Handling(slot, near, taken, released, done, lowering))
    return found


def receives(trajectory: Trajectory) -> bool:
    """Whether the other thing is a container or a surface for the target."""
    return GOALS[int(trajectory.scene["goal"])] == "receive"


class Timeline:
    """Places of the things along one trajectory."""

    def __init__(self, trajectory: Trajectory, seen: Observation) -> None:
        self.trajectory, self.handlings = trajectory, handlings(trajectory)
        self._seen = seen

    def active(self, step: float) -> Handling | None:
        """The handling whose window a point of time, in steps, is in."""
        for handling in self.handlings:
            if handling.near <= step <= handling.done:
                return handling
        return None

    def held(self, step: float) -> int:
        """The thing that the gripper carries, or -1."""
        for handling in self.handlings:
            if handling.taken < step < handling.released and self.trajectory.template != "push":
                return handling.slot
        return -1

    def receiving(self, step: float) -> bool:
        """Whether the target is being lowered into or onto the other thing, or is left there."""
        last = self.handlings[-1]
        return receives(self.trajectory) and last.lowering <= step

    def place(self, slot: int, step: float, tool: Floats) -> Floats | None:
        """[3] the foot of a thing with the tool [3] at this point of time; None if it is absent."""
        scene = self.trajectory.scene
        if scene["radius"][slot] <= 0:
            return None
        place: Floats = np.asarray(scene["position"][slot], np.float64)
        for index, handling in enumerate(self.handlings):
            if handling.slot != slot or step <= handling.taken:
                continue
            moved = tool if step < handling.released else self._seen.released[index]
            place = place + (moved - self._seen.taken[index])
            if self.trajectory.template == "push":
                # Pushed only once the fingers have crossed the gap before it.
                place = self._pushed(tool if step < handling.released else moved)
        return place

    def _pushed(self, tool: Floats) -> Floats:
        scene, start = self.trajectory.scene, self._seen.taken[0]
        way = self._seen.released[0] - start
        ahead = way / np.linalg.norm(way)
        beyond = max(0.0, float((tool - start) @ ahead) - PUSH_GAP)
        return np.asarray(scene["position"][TARGET] + beyond * ahead, np.float64)
