"""Transfers go around the robot's own axis and over the table, not straight through joint space."""

from __future__ import annotations

import numpy as np
import pytest

from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.generator import make_shard

CARRY = 4
"""Segment of `pick_place` in which the thing is carried: over, down, grip, lift come before it."""


def from_chord(points: np.ndarray) -> float:
    """The farthest that points [n, d] are from the line between the first and the last."""
    along = (points[-1] - points[0]) / np.linalg.norm(points[-1] - points[0])
    offsets = points - points[0]
    return float(np.linalg.norm(offsets - np.outer(offsets @ along, along), axis=1).max())


@pytest.mark.parametrize("robot", ["franka_panda", "ur5e"])
def test_a_carry_to_the_other_side_keeps_away_from_the_base(robot: str) -> None:
    arm = load_arm(robot)
    nearest = arm.reach_radius[0]
    shard = make_shard(arm, "pick_place", 3, 0, 24)
    bends, across = [], 0
    for row in range(len(shard)):
        trajectory = shard.trajectory(row)
        ends = trajectory.segment_ends
        carry = slice(int(ends[CARRY - 1]) - 1, int(ends[CARRY]))
        tool = trajectory.tool_pose[carry, :3]
        assert np.hypot(tool[:, 0], tool[:, 1]).min() > 0.9 * nearest
        # Lifted, and over the table all the way: no lower than where it begins or ends.
        assert tool[:, 2].min() > min(tool[0, 2], tool[-1, 2]) - 0.005
        azimuth = np.unwrap(np.arctan2(tool[:, 1], tool[:, 0]))
        if abs(azimuth[-1] - azimuth[0]) < np.pi / 2:
            continue
        line = np.linspace(tool[0], tool[-1], 50)
        across += np.hypot(line[:, 0], line[:, 1]).min() < 0.9 * nearest
        bends.append(from_chord(trajectory.joint_position[carry].astype(np.float64)))
    assert len(bends) >= 4
    # Some are little more than a turn of the first joint, which is straight by nature.
    assert np.median(bends) > 0.1
    assert across >= 2, "straight lines would have led through the robot"
