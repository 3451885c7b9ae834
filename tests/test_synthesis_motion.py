"""Paths, time laws and records: derivatives, limits, joints between segments."""

import numpy as np
import pytest

from vlarl.synthesis import motion
from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.motion import CHECKS, KNOTS, RATE


def test_the_path_goes_through_its_knots_and_derivatives_are_its_own():
    u, points = np.linspace(0, 1, 9), motion.knot_points()
    polynomial = np.polynomial.Polynomial([0.3, -1, 2, 0.5, -0.7])
    knots = polynomial(points)
    assert motion.basis(points) == pytest.approx(np.eye(KNOTS), abs=1e-12)
    for order in range(3):
        exact = polynomial.deriv(order)(u) if order else polynomial(u)
        assert motion.basis(u, order) @ knots == pytest.approx(exact, abs=1e-9)


def test_the_time_law_starts_and_ends_at_rest():
    s = np.linspace(0, 1, 201)
    position, speed, gain = motion.time_law(s)
    assert (position[0], position[-1]) == (0, pytest.approx(1))
    assert np.allclose([speed[0], speed[-1], gain[0], gain[-1]], 0)
    assert np.gradient(position, s)[1:-1] == pytest.approx(speed[1:-1], abs=1e-3)
    assert np.gradient(speed, s)[1:-1] == pytest.approx(gain[1:-1], abs=1e-2)
    assert (np.diff(position) >= 0).all()


def random_knots(arm, count, segments, seed=0):
    """Smooth random paths whose segments join."""
    random = np.random.default_rng(seed)
    corners = np.cumsum(random.normal(0, 0.4, (count, segments + 1, arm.joints)), axis=1)
    bend = random.normal(0, 0.1, (count, segments, 1, arm.joints))
    u = motion.knot_points()[:, None]
    straight = corners[:, :-1, None] + u * np.diff(corners, axis=1)[:, :, None]
    return straight + bend * np.sin(np.pi * u)


def sampled(arm, count=20, segments=3):
    knots = random_knots(arm, count, segments)
    still = np.zeros((count, segments))
    steps = motion.shortest_durations(arm, knots, still, still + 1)
    gripper = np.tile([0.0, 0.0, 0.6, 0.6], (count, 1))
    return knots, steps, motion.sample(knots, steps, gripper)


@pytest.mark.parametrize("name", ["franka_panda", "ur10e"])
def test_records_keep_every_joints_limits_and_use_one_of_them(name):
    arm = load_arm(name)
    _, steps, records = sampled(arm)
    busiest = []
    for row in range(20):
        span = slice(*records.offsets[row : row + 2])
        q, dq = records.position[span].astype(np.float64), records.velocity[span]
        speed = (np.abs(np.diff(q, axis=0)) * RATE / arm.velocity).max()
        gain = (np.abs(np.diff(q, 2, axis=0)) * RATE**2 / arm.acceleration).max()
        assert max(speed, gain) < 1
        assert (np.abs(dq) <= arm.velocity).all()
        middle = (q[2:] - q[:-2]) * RATE / 2
        assert middle == pytest.approx(dq[1:-1], abs=0.03)
        busiest.append(max(speed, gain))
    assert max(busiest) > 0.8
    assert steps.min() >= motion.SHORTEST


def test_segments_join_and_end_where_their_knots_do():
    knots, steps, records = sampled(load_arm("ur5e"))
    assert (records.segment_ends == np.cumsum(steps, axis=1)).all()
    for row in range(20):
        first = records.offsets[row]
        assert records.position[first] == pytest.approx(knots[row, 0, 0], abs=1e-6)
        for segment, end in enumerate(records.segment_ends[row]):
            at = first + end
            assert records.position[at] == pytest.approx(knots[row, segment, -1], abs=1e-6)
            assert records.velocity[at] == pytest.approx(0, abs=1e-5)
        closed = records.gripper[first : records.offsets[row + 1]]
        start, end = records.segment_ends[row][:2]
        assert (closed[: start + 1] == 0).all()
        assert (np.diff(closed[start : end + 1]) >= 0).all()
        assert closed[end:] == pytest.approx(0.6)


def test_a_slower_tool_takes_longer():
    arm = load_arm("xarm7")
    knots, way = random_knots(arm, 4, 2), np.full((4, 2), 0.5)
    quick = motion.shortest_durations(arm, knots, way, np.full((4, 2), 9.0))
    slow = motion.shortest_durations(arm, knots, way, np.full((4, 2), 0.1))
    assert (slow == np.ceil(1.875 * 0.5 / 0.1 * RATE)).all()
    assert (quick < slow).all()


def test_check_points_are_positions_along_the_path():
    knots = random_knots(load_arm("ur5e"), 2, 3)
    points = motion.check_points(knots)
    assert points.shape == (2, 3, CHECKS, 6)
    assert points[:, :, 0] == pytest.approx(knots[:, :, 0], abs=1e-12)
    assert points[:, :, -1] == pytest.approx(knots[:, :, -1], abs=1e-12)
