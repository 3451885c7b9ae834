"""Plane geometry of the navigation suite: how far, what blocks a step, what blocks a view.

An obstacle is a rectangle with sides along the axes and rounded outwards by a radius: a wall panel
has radius 0, a pillar is a rectangle without extent. Pure functions; all lengths in meters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SUBSTEPS = 5
"""Of a move: a tenth of a meter each, at the agent's speed."""


class Obstacles(NamedTuple):
    """`O` obstacles of one scene, or of `n` scenes with a leading axis."""

    center: Floats
    """[..., O, 2]"""
    half: Floats
    """[..., O, 2] half sizes of the rectangle."""
    radius: Floats
    """[..., O] of the rounding."""

    def only(self, which: slice | NDArray[np.int64]) -> Obstacles:
        """Some of them."""
        return Obstacles(
            self.center[..., which, :], self.half[..., which, :], self.radius[..., which]
        )


def gaps(points: Floats, obstacles: Obstacles) -> Floats:
    """[..., O] distances from points [..., 2] to each obstacle's surface; negative inside."""
    outside = np.abs(points[..., None, :] - obstacles.center) - obstacles.half
    inside = np.minimum(outside.max(axis=-1), 0.0)
    return np.linalg.norm(np.maximum(outside, 0.0), axis=-1) + inside - obstacles.radius


def is_free(points: Floats, obstacles: Obstacles, margin: float, arena: float) -> NDArray[np.bool_]:
    """[...] whether a disc of radius `margin` at points [..., 2] touches nothing.

    `arena` is half the width of the square room, whose outer walls count too.
    """
    within = np.abs(points).max(axis=-1) <= arena - margin
    return within & (gaps(points, obstacles).min(axis=-1) >= margin)


def is_clear(start: Floats, end: Floats, obstacles: Obstacles, margin: float) -> NDArray[np.bool_]:
    """[...] whether the straight lines `start` to `end` [..., 2] keep `margin` from all obstacles.

    Rounded corners count as square ones: a line that is clear is clear, one that grazes a corner
    may be called blocked.
    """
    reach = obstacles.half + (obstacles.radius + margin)[..., None]
    origin = start[..., None, :] - obstacles.center
    direction = (end - start)[..., None, :]
    # A component of zero never enters or leaves: infinities of the right sign.
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-reach - origin) / direction, (reach - origin) / direction
    parallel = np.broadcast_to(direction == 0, one.shape)
    beside = np.abs(origin) >= reach
    enter = np.where(parallel, np.where(beside, np.inf, -np.inf), np.minimum(one, two))
    leave = np.where(parallel, np.where(beside, -np.inf, np.inf), np.maximum(one, two))
    first, last = enter.max(axis=-1).clip(min=0.0), leave.min(axis=-1).clip(max=1.0)
    blocked: NDArray[np.bool_] = (first < last).any(axis=-1)
    return ~blocked


def slide(
    start: Floats, end: Floats, obstacles: Obstacles, margin: float, arena: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Where discs of radius `margin` get to on their straight ways, `start` to `end` [n, 2].

    In small steps; what is blocked by an obstacle goes on along x or along y, where it can.

    Returns:
        [n, 2] where they are in the end, and [n] whether anything was in the way.
    """
    place, way = start, (end - start) / _SUBSTEPS
    blocked = np.zeros(len(start), np.bool_)
    for _ in range(_SUBSTEPS):
        remaining = np.ones(len(start), np.bool_)
        for part in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
            there = place + way * part
            passes = remaining & _may_move(place, there, obstacles, margin, arena)
            place = np.where(passes[:, None], there, place)
            remaining &= ~passes
            blocked |= remaining
    return place, blocked


def _may_move(
    here: Floats, there: Floats, obstacles: Obstacles, margin: float, arena: float
) -> NDArray[np.bool_]:
    """[n] whether a disc touches nothing `there`, or nothing more than it does `here`."""
    beyond = np.abs(there).max(axis=-1) > arena - margin
    gap = gaps(there, obstacles)
    hit = (gap < margin) & (gap < gaps(here, obstacles))
    free: NDArray[np.bool_] = ~beyond & ~hit.any(axis=-1)
    return free
