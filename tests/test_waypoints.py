"""Waypoints: inverse pair, hand-computed path, the frame they are in, angles that wrap."""

import numpy as np
import pytest

from vlarl.waypoints import moved, poses_from_waypoints, waypoints_from_poses, wrapped


def test_a_square_by_hand():
    """One meter ahead and a quarter turn left, four times, ends where it began."""
    path = poses_from_waypoints(np.zeros(3), np.tile([1.0, 0.0, np.pi / 2], (4, 1)))
    corners = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    assert np.allclose(path[:, :2], corners)
    assert path[-1, 2] == pytest.approx(2 * np.pi)


def test_displacement_is_in_the_frame_before_the_turn():
    facing_y = np.array([2.0, 3.0, np.pi / 2])
    assert np.allclose(moved(facing_y, [1.0, 0.5, -np.pi / 2]), [1.5, 4.0, 0.0])


def test_inverse_pair():
    random = np.random.default_rng(0)
    waypoints = random.uniform(-1, 1, (5, 8, 3)) * [2.0, 2.0, 3.1]
    start = random.uniform(-4, 4, (5, 3))
    poses = poses_from_waypoints(start, waypoints)
    assert poses.shape == (5, 9, 3)
    assert np.allclose(waypoints_from_poses(poses), waypoints)
    wrapped_poses = np.concatenate([poses[..., :2], wrapped(poses[..., 2:])], axis=-1)
    assert np.allclose(waypoints_from_poses(wrapped_poses), waypoints)
    again = poses_from_waypoints(start, waypoints_from_poses(poses))
    assert np.allclose(again, poses)


def test_waypoints_do_not_depend_on_where_the_trajectory_lies():
    random = np.random.default_rng(1)
    waypoints = random.uniform(-1, 1, (8, 3))
    here, there = (poses_from_waypoints(start, waypoints) for start in random.normal(size=(2, 3)))
    assert np.allclose(waypoints_from_poses(here), waypoints_from_poses(there))


def test_a_chunk_may_be_cut_anywhere():
    """Executing three waypoints and then the other five is executing eight."""
    waypoints = np.random.default_rng(2).uniform(-1, 1, (8, 3))
    whole = poses_from_waypoints(np.zeros(3), waypoints)
    rest = poses_from_waypoints(whole[3], waypoints[3:])
    assert np.allclose(rest, whole[3:])


def test_the_turn_across_the_seam_is_the_short_one():
    poses = np.array([[0, 0, np.pi - 0.1], [0, 0, -np.pi + 0.1]])
    assert waypoints_from_poses(poses)[0, 2] == pytest.approx(0.2)
    assert np.allclose(wrapped([np.pi, -np.pi, 3 * np.pi, 0.5]), [-np.pi, -np.pi, -np.pi, 0.5])
