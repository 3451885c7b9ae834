"""A kinematic bicycle that follows a path by pure pursuit, and the waypoints of what it drove."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.driving.roads import SPACING, Road, distance_to

WAYPOINT_HZ = 2.0
WHEELBASE, MAX_STEER = 2.7, 0.55
SIDE_GRIP = 2.5
"""Lateral acceleration that a driver allows, m/s^2."""
MAX_ACCELERATION, MAX_BRAKE = 2.0, 3.5
_DT = 0.05
_LONGEST = 40.0
"""Seconds of a drive, at most."""
LANE_ERROR = 0.6
"""Meters off the path beyond which a drive has failed."""


@dataclass(frozen=True)
class Drive:
    """What the car did."""

    poses: NDArray[np.float64]
    """[T + 1, 3] x, y, heading at `WAYPOINT_HZ`."""
    speeds: NDArray[np.float64]
    """[T + 1] m/s."""
    defect: str
    """Why it is no success; empty: it is one."""


def bicycle(
    pose: NDArray[np.float64], speed: float, steer: float, dt: float
) -> NDArray[np.float64]:
    """The pose [3] after `dt` seconds at constant speed and steering angle, on an exact arc."""
    x, y, heading = pose
    turn = speed * np.tan(steer) / WHEELBASE * dt
    chord = speed * dt * np.sinc(turn / (2 * np.pi))
    middle = heading + turn / 2
    return np.array([x + chord * np.cos(middle), y + chord * np.sin(middle), heading + turn])


def drive(road: Road, random: np.random.Generator) -> Drive:
    """Follow the road's path from near its start to its end; pace and start differ."""
    path = road.path
    pose = np.array([*path[0], np.arctan2(*(path[3] - path[0])[::-1])])
    pose += random.normal(size=3) * [0.0, 0.15, 0.02]
    speed = float(random.uniform(0.5, 1.0) * road.speed)
    limit = _speed_limits(road) * random.uniform(0.85, 1.0)
    poses, speeds, place = [pose], [speed], 0
    each = round(1 / (WAYPOINT_HZ * _DT))
    for step in range(1, round(_LONGEST / _DT) + 1):
        window = path[place : place + 20]
        place += int(np.linalg.norm(window - pose[:2], axis=1).argmin())
        wanted = limit[min(place + 1, len(path) - 1)]
        change = np.clip((wanted - speed) / _DT, -MAX_BRAKE, MAX_ACCELERATION)
        speed = max(0.0, speed + change * _DT)
        steer = _pursuit(path, place, pose, speed) + random.normal() * 0.004
        pose = bicycle(pose, speed, float(np.clip(steer, -MAX_STEER, MAX_STEER)), _DT)
        if step % each == 0:
            poses.append(pose)
            speeds.append(speed)
        at_end = place >= len(path) - (5 if road.stops else 6)
        if at_end and (not road.stops or speed < 0.3) and step % each == 0:
            break
    return Drive(np.stack(poses), np.array(speeds), _defect(road, np.stack(poses), at_end))


def waypoints(poses: NDArray[np.float64]) -> NDArray[np.float32]:
    """[T, 3] dx, dy, dtheta from each pose [T + 1, 3] to the next, in the frame of the former.

    dx is forwards, dy to the left, dtheta counterclockwise (paper section 2.4).
    """
    step = np.diff(poses, axis=0)
    cosine, sine = np.cos(poses[:-1, 2]), np.sin(poses[:-1, 2])
    forward = cosine * step[:, 0] + sine * step[:, 1]
    left = cosine * step[:, 1] - sine * step[:, 0]
    turn = (step[:, 2] + np.pi) % (2 * np.pi) - np.pi
    return np.stack([forward, left, turn], axis=1).astype(np.float32)


def poses_of(start: NDArray[np.float64], moves: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inverse of `waypoints`: [T + 1, 3] poses from a start [3] and moves [T, 3]."""
    poses = [np.asarray(start, np.float64)]
    for forward, left, turn in moves.astype(np.float64):
        x, y, heading = poses[-1]
        cosine, sine = np.cos(heading), np.sin(heading)
        moved = (x + cosine * forward - sine * left, y + sine * forward + cosine * left)
        poses.append(np.array([*moved, heading + turn]))
    return np.stack(poses)


def _pursuit(
    path: NDArray[np.float64], place: int, pose: NDArray[np.float64], speed: float
) -> float:
    """Steering angle towards the point of the path that lies a little ahead."""
    ahead = path[min(place + round((3.0 + 0.25 * speed) / SPACING), len(path) - 1)] - pose[:2]
    angle = np.arctan2(ahead[1], ahead[0]) - pose[2]
    reach = max(float(np.linalg.norm(ahead)), 1.0)
    return float(np.arctan2(2 * WHEELBASE * np.sin(angle), reach))


def _speed_limits(road: Road) -> NDArray[np.float64]:
    """[n] m/s at each point of the path: the road's, slower in bends, braked for in time."""
    path = road.path
    ahead = np.gradient(path, axis=0)
    angle = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
    bend = np.abs(np.gradient(angle)) / SPACING
    limit = np.minimum(road.speed, np.sqrt(SIDE_GRIP / np.maximum(bend, 1e-4)))
    if road.stops:
        limit[-2:] = 0.0
    for place in range(len(path) - 2, -1, -1):
        limit[place] = min(limit[place], np.sqrt(limit[place + 1] ** 2 + 2 * 2.0 * SPACING))
    return limit


def _defect(road: Road, poses: NDArray[np.float64], at_end: bool) -> str:
    if not at_end:
        return "did not arrive"
    if np.abs(distance_to(road.path, poses[:, :2])).max() > LANE_ERROR:
        return "left its lane"
    for box in road.boxes:
        reach = (np.hypot(*box.size[:2]) + 4.4) / 2
        near = np.linalg.norm(poses[:, :2] - box.center, axis=1) < reach
        if near.any() and box.size[2] < 2:
            return "came too near a car"
    return ""
