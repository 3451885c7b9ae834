"""From knots in joint space to records at 50 Hz, within the limits of every joint.

A path segment is the polynomial through `KNOTS` joint positions at Chebyshev points. It is run
through by a minimum-jerk time law from rest to rest, so that velocity and acceleration are zero at
both ends and segments join smoothly. Its duration is the shortest whole number of control steps at
which no joint exceeds its velocity or acceleration, nor the tool its speed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.synthesis.arm import Arm, Floats

RATE = 50.0
"""Records a second (paper section 3.2.3)."""
KNOTS = 8
CHECKS = 24
"""Points of time at which a segment is held against limits and obstacles."""
LIMIT_SHARE = 0.92
"""Of each limit that is used: the rest covers what happens between the points of time."""
SHORTEST = 8
"""Steps of a segment that hardly moves."""

Ints = NDArray[np.int64]


def knot_points() -> Floats:
    """[KNOTS] Chebyshev points of the second kind on [0, 1], rising."""
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.arange(KNOTS) / (KNOTS - 1)))


@functools.cache
def _monomials() -> Floats:
    """[KNOTS, KNOTS] values at the knots -> Chebyshev coefficients on [-1, 1]."""
    return np.linalg.inv(np.polynomial.chebyshev.chebvander(2 * knot_points() - 1, KNOTS - 1))


def basis(u: Floats, derivative: int = 0) -> Floats:
    """[len(u), KNOTS]: the path (or its derivative by `u`) at `u` from the values at the knots."""
    found = np.empty((len(u), KNOTS))
    for column in range(KNOTS):
        coefficients = np.polynomial.chebyshev.chebder(_monomials()[:, column], derivative)
        values = np.polynomial.chebyshev.chebval(2 * u - 1, coefficients)
        found[:, column] = values * 2.0**derivative
    return found


def time_law(s: Floats) -> tuple[Floats, Floats, Floats]:
    """Position along the path, its first and its second derivative, by the share of time `s`."""
    return (
        s**3 * (10 - 15 * s + 6 * s**2),
        30 * s**2 * (1 - s) ** 2,
        60 * s * (1 - s) * (1 - 2 * s),
    )


@functools.cache
def _check_grid() -> tuple[Floats, Floats, Floats]:
    """[CHECKS, KNOTS] positions, velocities and accelerations for a duration of one second."""
    u, speed, gain = time_law(np.linspace(0, 1, CHECKS))
    first = basis(u, 1)
    second = basis(u, 2)
    return basis(u), first * speed[:, None], second * speed[:, None] ** 2 + first * gain[:, None]


@functools.cache
def _step_grid(steps: int) -> tuple[Floats, Floats]:
    """[steps, KNOTS] positions and velocities (for a second) after 1 to `steps` of `steps`."""
    u, speed, _ = time_law(np.arange(1, steps + 1) / steps)
    return basis(u).astype(np.float32), (basis(u, 1) * speed[:, None]).astype(np.float32)


def check_points(knots: Floats) -> Floats:
    """[..., CHECKS, n] joint positions at the points of time, from knots [..., KNOTS, n]."""
    return np.asarray(_check_grid()[0] @ knots)


def shortest_durations(arm: Arm, knots: Floats, tool_path: Floats, tool_speed: Floats) -> Ints:
    """Control steps each segment needs at least.

    Args:
        arm: `n` joints
        knots: [N, S, KNOTS, n]
        tool_path: [N, S] meters that the tool goes (its turns counted in).
        tool_speed: [N, S] its largest speed in m/s.
    """
    _, velocity, acceleration = _check_grid()
    speeds = np.abs(velocity @ knots).max(axis=-2) / (LIMIT_SHARE * arm.velocity)
    gains = np.abs(acceleration @ knots).max(axis=-2) / (LIMIT_SHARE * arm.acceleration)
    seconds = np.maximum(speeds.max(-1), np.sqrt(gains.max(-1)))
    # The minimum-jerk law's top speed is 15/8 of the mean.
    seconds = np.maximum(seconds, 1.875 * tool_path / tool_speed)
    return np.maximum(np.ceil(seconds * RATE), SHORTEST).astype(np.int64)


@dataclass(frozen=True)
class Records:
    """`T` control steps of `N` trajectories, one after the other."""

    offsets: Ints
    """[N + 1] trajectory `i` is `offsets[i]:offsets[i + 1]`."""
    segment_ends: Ints
    """[N, S] the step, from the trajectory's start, at which each segment is complete."""
    position: NDArray[np.float32]
    """[T, n] of the joints, rad."""
    velocity: NDArray[np.float32]
    """[T, n] of the joints, rad/s."""
    gripper: NDArray[np.float32]
    """[T] 0 open, 1 closed."""


def sample(knots: Floats, steps: Ints, gripper: Floats) -> Records:
    """Records at 50 Hz, the state at rest at the start included.

    Args:
        knots: [N, S, KNOTS, n]
        steps: [N, S] control steps of each segment.
        gripper: [N, S + 1] at the start, and after each segment.
    """
    count, segments, _, joints = knots.shape
    ends = np.cumsum(steps, axis=1)
    offsets = np.concatenate([[0], np.cumsum(ends[:, -1] + 1)])
    position = np.empty((offsets[-1], joints), np.float32)
    velocity = np.zeros_like(position)
    closed = np.empty(offsets[-1], np.float32)
    starts = offsets[:-1]
    position[starts], closed[starts] = knots[:, 0, 0], gripper[:, 0]
    flat_knots = knots.reshape(count * segments, KNOTS, joints).astype(np.float32)
    flat_steps = steps.ravel()
    first = (starts[:, None] + ends - steps + 1).ravel()
    before, after = gripper[:, :-1].ravel(), gripper[:, 1:].ravel()
    order = np.argsort(flat_steps, kind="stable")
    values, cuts = np.unique(flat_steps[order], return_index=True)
    for length, rows in zip(values.tolist(), np.split(order, cuts[1:]), strict=True):
        places, changes = _step_grid(length)
        index = first[rows][:, None] + np.arange(length)
        position[index] = places @ flat_knots[rows]
        velocity[index] = changes @ flat_knots[rows] * np.float32(RATE / length)
        share = time_law(np.arange(1, length + 1) / length)[0]
        closed[index] = before[rows][:, None] + (after - before)[rows][:, None] * share
    return Records(offsets, ends, position, velocity, closed)
