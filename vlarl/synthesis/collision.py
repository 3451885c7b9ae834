"""Clearances of an arm: to itself, to the table, and to things that stand on it.

Links are capsules; things on the table, and what is held, are upright cylinders. Distances are
between surfaces, in meters; negative means inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.kinematics import Frame

_TINY = 1e-9


@dataclass(frozen=True)
class Segments:
    """The axes of capsules in `N` configurations."""

    start: Floats
    """[3, N]"""
    end: Floats
    """[3, N]"""
    radius: float


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder in `N` configurations."""

    foot: Floats
    """[3, N] the middle of its lower face."""
    radius: Floats
    """[N]"""
    height: Floats
    """[N]"""


def arm_segments(arm: Arm, frames: list[Frame]) -> list[Segments]:
    """The arm's capsules, in the order of `arm.capsules`."""
    return [
        Segments(
            frames[capsule.link].point(capsule.start),
            frames[capsule.link].point(capsule.end),
            capsule.radius,
        )
        for capsule in arm.capsules
    ]


def self_clearance(arm: Arm, segments: list[Segments]) -> Floats:
    """[N] smallest distance between links that could collide."""
    return _smallest(
        distance(segments[first], segments[second]) for first, second in arm.self_pairs()
    )


def table_clearance(arm: Arm, segments: list[Segments]) -> Floats:
    """[N] smallest height above the table, of all links but the base."""
    return _smallest(
        np.minimum(segment.start[2], segment.end[2]) - segment.radius
        for capsule, segment in zip(arm.capsules, segments, strict=True)
        if capsule.link > 0
    )


def cylinder_clearance(segments: Iterable[Segments], cylinder: Cylinder) -> Floats:
    """[N] smallest distance of capsules to an upright cylinder.

    Points along each axis, at most 0.7 radii apart, stand for it: the true distance may be smaller
    by 6% of the capsule's radius.
    """
    return _smallest(
        _point_clearance(segment.start + share * (segment.end - segment.start), cylinder)
        - segment.radius
        for segment in segments
        for share in _shares(segment)
    )


def cylinders_clearance(a: Cylinder, b: Cylinder) -> Floats:
    """[N] distance between two upright cylinders."""
    across = np.hypot(a.foot[0] - b.foot[0], a.foot[1] - b.foot[1]) - a.radius - b.radius
    upward = np.maximum(a.foot[2] - b.foot[2] - b.height, b.foot[2] - a.foot[2] - a.height)
    return _outside(across, upward)


def _point_clearance(point: Floats, cylinder: Cylinder) -> Floats:
    """[N] distance of points [3, N] to the cylinder."""
    across = np.hypot(point[0] - cylinder.foot[0], point[1] - cylinder.foot[1]) - cylinder.radius
    below = cylinder.foot[2] - point[2]
    upward = np.maximum(below, -below - cylinder.height)
    return _outside(across, upward)


def _outside(across: Floats, upward: Floats) -> Floats:
    """Distance to a cylinder from how far beyond its side and beyond its faces something is."""
    far = np.hypot(np.maximum(across, 0), np.maximum(upward, 0))
    return np.asarray(far + np.minimum(np.maximum(across, upward), 0))


def _shares(segment: Segments) -> Floats:
    """Where the points that stand for a capsule lie along its axis."""
    difference = segment.end[:, 0] - segment.start[:, 0]
    length = float(np.sqrt(_dot(difference, difference)))
    count = 1 + int(np.ceil(length / (0.7 * segment.radius)))
    return np.linspace(0, 1, count, dtype=segment.start.dtype) if count > 1 else np.zeros(1)


def distance(a: Segments, b: Segments) -> Floats:
    """[N] distance between the surfaces of two capsules.

    The closest points of two segments (Ericson, Real-Time Collision Detection, section 5.1.9): the
    unconstrained pair, one parameter clamped, the other solved for it and clamped, the first again.
    """
    along_a, along_b, between = a.end - a.start, b.end - b.start, a.start - b.start
    aa, bb = _dot(along_a, along_a), _dot(along_b, along_b)
    ab, a_between, b_between = (
        _dot(along_a, along_b),
        _dot(along_a, between),
        _dot(along_b, between),
    )
    parallel = aa * bb - ab * ab
    s = np.where(
        parallel > _TINY, (ab * b_between - a_between * bb) / np.maximum(parallel, _TINY), 0
    )
    s = np.clip(s, 0, 1)
    t = np.clip((ab * s + b_between) / np.maximum(bb, _TINY), 0, 1)
    s = np.clip((ab * t - a_between) / np.maximum(aa, _TINY), 0, 1)
    gap = between + along_a * s - along_b * t
    found = np.sqrt(_dot(gap, gap)) - (a.radius + b.radius)
    return np.asarray(found)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _smallest(values: Iterable[Floats]) -> Floats:
    found = None
    for value in values:
        found = value if found is None else np.minimum(found, value)
    assert found is not None
    return found
