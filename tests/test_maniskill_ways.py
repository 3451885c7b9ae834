"""Ways of our own, carried out by a hand that goes exactly where it is sent."""

import itertools

import numpy as np
import pytest

from envservers.maniskill.planner import SOLUTIONS
from envservers.maniskill.tasks import TABLE_TOP
from envservers.maniskill.ways import WAYS, drawn

BASE = np.array([-0.615, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
HAND = np.array([0.01, 0.02, 0.17, 0.0, np.sqrt(0.5), np.sqrt(0.5), 0.0])
"""As the arm with the camera begins: the fingers close along x."""
CORNER = 0.02 * np.sqrt(2)
"""Of a cube, from its center, m."""


def lying(x, y, z=0.02, yaw=0.0):
    return np.array([x, y, z, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def carried_out(task, **things):
    """[n, 7] and [n] of `drawn`."""
    poses = {"base": BASE, "hand": HAND, **things}
    return drawn(WAYS[task](poses), poses["hand"])


def closing(pose):
    """[2] along which the fingers of a hand that points down close: its own y."""
    w, x, y, z = pose[3:]
    return np.array([2 * (x * y - w * z), 1 - 2 * (x * x + z * z)])


def pyramids(number):
    random = np.random.default_rng(0)
    while number:
        red, green, blue = (
            lying(*random.uniform([-0.2, -0.3], [0.2, 0.3]), yaw=random.uniform(-np.pi, np.pi))
            for _ in range(3)
        )
        pairs = itertools.combinations((red, green, blue), 2)
        if min(np.linalg.norm(one[:2] - other[:2]) for one, other in pairs) > 2 * CORNER:
            number -= 1
            yield red, green, blue


def test_every_task_is_solved_by_a_planner_or_has_a_way():
    assert set(SOLUTIONS) | set(WAYS) == set(TABLE_TOP)
    assert not set(SOLUTIONS) & set(WAYS)


def test_a_way_has_no_jumps_and_begins_at_the_hand():
    things = dict(zip(("cubeA", "cubeB", "cubeC"), next(pyramids(1)), strict=True))
    poses, gripper = carried_out("StackPyramid-v1", **things)
    steps = np.diff(np.concatenate([HAND[None], poses]), axis=0)
    assert np.linalg.norm(steps[:, :3], axis=1).max() < 0.0101
    assert np.linalg.norm(steps[:, 3:], axis=1).max() < 0.0501, "half the angle"
    np.testing.assert_allclose(np.linalg.norm(poses[:, 3:], axis=1), 1.0)
    assert [key for key, _ in itertools.groupby(gripper)] == [1.0, -1.0, 1.0, -1.0, 1.0]


def test_cubes_are_stacked_wherever_they_lie():
    for number, cubes in enumerate(pyramids(40)):
        red, green, blue = (cube.copy() for cube in cubes)
        poses, gripper = carried_out("StackPyramid-v1", cubeA=red, cubeB=green, cubeC=blue)
        cubes = [red, green, blue]
        held, grips = None, 0
        for pose, told, before in zip(poses, gripper, [1.0, *gripper[:-1]], strict=False):
            if told < before:  # closes
                held = min(cubes, key=lambda cube: np.linalg.norm(cube[:3] - pose[:3]))
                assert np.linalg.norm(held[:3] - pose[:3]) < 1e-9, "around its middle"
                angle = 2 * np.arctan2(held[6], held[3])
                square = closing(pose) @ np.array([[np.cos(angle)], [np.sin(angle)]])
                assert min(abs(square), abs(abs(square) - 1)) < 1e-9, "along its sides"
                grips += 1
            if told > before:
                held = None
            if held is not None:
                held[:3] = pose[:3]
                for other in cubes:
                    near = np.linalg.norm(other[:3] - held[:3])
                    assert other is held or near > 0.04, f"scene {number}: runs into another"
        assert grips in (1, 2)
        assert np.linalg.norm(red[:2] - green[:2]) < 0.0616, "side by side"
        np.testing.assert_allclose(blue[:3], [*(red + green)[:2] / 2, 0.06], atol=1e-9)


def test_cubes_that_are_side_by_side_stay_where_they_are():
    red, green, blue = lying(0.0, 0.0), lying(0.0, 0.058), lying(0.1, -0.2)
    _, gripper = carried_out("StackPyramid-v1", cubeA=red, cubeB=green, cubeC=blue)
    assert (np.diff(gripper) < 0).sum() == 1


def outside(point, low, high):
    """Of a point [2] from a rectangle, m."""
    return np.linalg.norm(np.maximum(np.maximum(low - point, point - high), 0.0))


@pytest.mark.parametrize("seed", range(12))
def test_the_tool_comes_round_the_cube_and_pulls_it_close(seed):
    random = np.random.default_rng(seed)
    tool = lying(*random.uniform([-0.3, -0.3], [-0.1, -0.1]), z=0.025)
    cube = lying(*random.uniform([0.05, -0.25], [0.25, 0.05]), yaw=random.uniform(-0.5, 0.5))
    poses, gripper = carried_out("PullCubeTool-v1", l_shape_tool=tool, cube=cube)
    taken = np.flatnonzero(gripper < 0)[0]
    grip = poses[taken, :3] - tool[:3]
    assert 0 < grip[0] < 0.15
    assert abs(closing(poses[taken])[1]) > 0.999, "across the handle"
    assert np.ptp(poses[taken:, 2]) < 1e-9, "it slides"
    place = cube[:2].copy()
    began = 2 * np.arctan2(poses[taken, 5], poses[taken, 4])
    for pose in poses[taken:]:
        turn = 2 * np.arctan2(pose[5], pose[4]) - began
        ahead, left = (
            np.array([np.cos(turn), np.sin(turn)]),
            np.array([-np.sin(turn), np.cos(turn)]),
        )
        seen = place - pose[:2]
        seen = np.array([seen @ ahead, seen @ left]) + grip[:2]
        handle = outside(seen, np.array([0.0, -0.025]), np.array([0.2, 0.025]))
        hook = outside(seen, np.array([0.15, 0.0]), np.array([0.2, 0.1]))
        if seen[0] < 0.15 and 0.025 < seen[1] < 0.1 and hook < CORNER:
            place += (seen[0] - (0.15 - CORNER)) * -ahead  # the hook takes it along
        else:
            assert min(handle, hook) > CORNER - 1e-9, "it is not touched before"
    assert np.linalg.norm(place - BASE[:2]) < 0.6 - 0.03


def test_the_pegs_head_pushes_the_cube_onto_the_mark_within_reach():
    for x in (-0.1, 0.1):
        for y, beside in itertools.product((-0.1, 0.1), repeat=2):
            peg, cube = lying(x, y, 0.025), lying(x + 0.22, beside, yaw=0.3)
            goal = lying(x + 0.32, beside, 0.001)
            poses, gripper = carried_out("PokeCube-v1", peg=peg, cube=cube, goal_region=goal)
            taken = np.flatnonzero(gripper < 0)[0]
            moved = poses[taken:, :3] - poses[taken, :3]
            head = peg[:3] + moved + [0.12, 0.0, 0.0]
            touching = head[:, 0] > cube[0] - CORNER
            np.testing.assert_allclose(head[touching, 1], cube[1], atol=1e-9)
            pushed = np.array([head[-1, 0] + 0.02, cube[1]])
            assert np.linalg.norm(pushed - goal[:2]) < 0.045
            assert np.linalg.norm(poses[:, :2] - BASE[:2], axis=1).max() < 0.8


def test_the_ball_is_pushed_from_behind_toward_the_mark():
    base = np.array([-0.1, 1.0, 0.0, np.sqrt(0.5), 0.0, 0.0, -np.sqrt(0.5)])
    hand = np.array([-0.06, 0.37, 0.18, 0.0, 1.0, 0.0, 0.0])
    for x, y, mark in itertools.product((-0.4, 0.2), (0.5, 0.7), (-0.4, 0.2)):
        ball, goal = lying(x, y, 0.035), lying(mark, -0.9, 0.001)
        poses, _ = carried_out("RollBall-v1", ball=ball, goal_region=goal, base=base, hand=hand)
        low = poses[poses[:, 2] < 0.0351, :2] - ball[:2]
        way = (goal[:2] - ball[:2]) / np.linalg.norm(goal[:2] - ball[:2])
        assert np.abs(low @ [-way[1], way[0]]).max() < 1e-9, "straight through its middle"
        assert low[0] @ way < -0.055
        assert low[-1] @ way > 0.3
        over = poses[poses[:, 2] > 0.0351]
        near = np.linalg.norm(over[:, :2] - ball[:2], axis=1) < 0.045
        assert over[near, 2].min(initial=1.0) > 0.08, "over it, not into it"
