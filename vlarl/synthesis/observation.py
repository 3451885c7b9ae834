"""What a recorded trajectory shows, found from its records alone.

Used to word instructions and to hold them against the motion: where the tool took something and let
go, how it turned between, how fast and how high it went.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis.arm import Floats
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.plan import PUSH_GAP

GRASPS = {
    "pick_place": 1,
    "rotate_reposition": 1,
    "rotate_toward": 1,
    "pull": 1,
    "push": 0,
    "swap": 3,
}
"""How often each template takes hold of something."""


@dataclass(frozen=True)
class Observation:
    """One trajectory."""

    taken: Floats
    """[G, 3] where the tool was when it had closed; for a push, where it began to push."""
    released: Floats
    """[G, 3] where it began to open; for a push, where it stopped."""
    moved: float
    """Meters that the target went over the table in the first of them."""
    turned: Floats
    """[G] radians by which the tool turned between, counterclockwise from above."""
    top_speed: float
    """Of the tool, m/s."""
    top_height: float
    """Of the tool while it holds something, in meters; NaN for a push and a pull."""
    straight: float
    """How far the tool left the straight line between `taken` and `released`, at most (m)."""


def grasp_steps(gripper: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Steps at which the gripper has closed and at which it begins to open again."""
    change = np.sign(np.diff(gripper.astype(np.float64)))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], change, [0]])))
    runs = [(int(a), int(b), change[a]) for a, b in pairwise(edges)]
    found, closed = [], None
    for start, end, sign in runs:
        if sign > 0:
            closed = end
        elif sign < 0 and closed is not None:
            found.append((closed, start))
            closed = None
    return found


def observe(
    template: str,
    tool_pose: NDArray[np.float32],
    gripper: NDArray[np.float32],
    segment_ends: NDArray[np.int32],
) -> Observation:
    """What `T` records show.

    Args:
        template: one of `TEMPLATES`.
        tool_pose: [T, 7] position and quaternion (w, x, y, z).
        gripper: [T]
        segment_ends: [S] steps at which the stages end; a push is the third stage.
    """
    position = tool_pose[:, :3].astype(np.float64)
    if template == "push":
        spans = [(int(segment_ends[1]), int(segment_ends[2]))]
    else:
        spans = grasp_steps(gripper)
    yaw = np.unwrap(tool_yaw(tool_pose))
    speeds = np.linalg.norm(np.diff(position, axis=0), axis=1) * RATE
    lifts = template not in ("push", "pull")
    heights = [position[a : b + 1, 2].max() for a, b in spans] if lifts else []
    first, last = spans[0] if spans else (0, 0)
    # A push begins a gap before the thing that is pushed.
    gap = PUSH_GAP if template == "push" else 0.0
    return Observation(
        taken=np.array([position[a] for a, _ in spans]).reshape(-1, 3),
        released=np.array([position[b] for _, b in spans]).reshape(-1, 3),
        moved=float(np.linalg.norm((position[last] - position[first])[:2])) - gap,
        turned=np.array([yaw[b] - yaw[a] for a, b in spans]),
        top_speed=float(speeds.max(initial=0)),
        top_height=float(max(heights, default=np.nan)),
        straight=_off_line(position[first : last + 1]),
    )


def tool_yaw(tool_pose: NDArray[np.float32]) -> Floats:
    """[T] angle of the tool's x axis, seen from above, from [T, 7]."""
    w, x, y, z = tool_pose[:, 3:].astype(np.float64).T
    return np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))


def _off_line(path: Floats) -> float:
    """Largest distance of [T, 3] from the line between its ends."""
    way = path[-1] - path[0]
    length = float(way @ way)
    if length < 1e-12:
        return 0.0
    away = path - path[0]
    return float(np.linalg.norm(away - np.outer(away @ way / length, way), axis=1).max())
