"""The state of all slots of the suite, one row each: what a snapshot holds besides the looks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from envservers.navigation.geometry import Floats, Obstacles
from envservers.navigation.planner import SIDE
from envservers.navigation.sampling import PERSON, WALK_STEPS
from envservers.navigation.scene import PARKED

NEVER, RUNNING, ENDED = 0, 1, 2


@dataclass(frozen=True)
class Slots:
    """Arrays that change in place as episodes run; `n` slots."""

    pose: Floats
    """[n, 3] where each agent is; the heading is in [-pi, pi)."""
    start: Floats
    """[n, 3] where it was at first."""
    center: Floats
    """[n, O, 2] of the obstacles; see `sampling.py` for their order."""
    half: Floats
    """[n, O, 2]"""
    radius: Floats
    """[n, O]"""
    goal: NDArray[np.int64]
    """[n] which obstacle is the goal."""
    walk: Floats
    """[n, WALK_STEPS + 1, 2] where a goal that walks goes."""
    walked: NDArray[np.int64]
    """[n] how far it has come."""
    field: Floats
    """[n, SIDE, SIDE] meters to walk to where the goal ends up; see `planner.py`."""
    phase: NDArray[np.int8]
    """[n] `NEVER` reset, `RUNNING` or `ENDED`."""
    seed: NDArray[np.int64]
    task: NDArray[np.int64]
    """[n] column of the task."""
    steps: NDArray[np.int32]
    still: NDArray[np.int32]
    """[n] control steps in a row without a move."""
    succeeded: NDArray[np.bool_]
    been_near: NDArray[np.bool_]
    path: Floats
    """[n] meters gone."""
    shortest: Floats
    """[n] meters that a shortest way from start to goal has."""
    collisions: NDArray[np.int32]
    """[n] control steps in which something was in the way."""
    in_view: NDArray[np.int32]
    """[n] control steps after which the goal was in view."""

    @staticmethod
    def allocate(n: int) -> Slots:
        """All of them empty."""
        count = PERSON + 1
        return Slots(
            pose=np.zeros((n, 3)),
            start=np.zeros((n, 3)),
            center=np.full((n, count, 2), PARKED),
            half=np.zeros((n, count, 2)),
            radius=np.zeros((n, count)),
            goal=np.zeros(n, np.int64),
            walk=np.zeros((n, WALK_STEPS + 1, 2)),
            walked=np.zeros(n, np.int64),
            field=np.zeros((n, SIDE, SIDE)),
            phase=np.full(n, NEVER, np.int8),
            seed=np.zeros(n, np.int64),
            task=np.zeros(n, np.int64),
            steps=np.zeros(n, np.int32),
            still=np.zeros(n, np.int32),
            succeeded=np.zeros(n, np.bool_),
            been_near=np.zeros(n, np.bool_),
            path=np.zeros(n),
            shortest=np.zeros(n),
            collisions=np.zeros(n, np.int32),
            in_view=np.zeros(n, np.int32),
        )

    def obstacles(self, ids: NDArray[np.int64]) -> Obstacles:
        """Those of some slots."""
        return Obstacles(self.center[ids], self.half[ids], self.radius[ids])

    def goal_center(self, ids: NDArray[np.int64]) -> Floats:
        """[n, 2] where the goals are now."""
        return self.center[ids, self.goal[ids]]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
