"""ManiSkill's suites as far as they go without the simulator: tasks, specs, robots, mistakes."""

import numpy as np
import pytest

from envservers.maniskill.robots import PANDA, WIDOWX, hand_state
from envservers.maniskill.tasks import TABLE_TOP
from envservers.registry import describe_suite
from vlarl.config.embodiments import load_embodiment
from vlarl.errors import UserError


@pytest.mark.parametrize("suite", ["maniskill", "simpler-widowx"])
def test_spec_and_embodiment_agree(suite):
    spec = describe_suite(suite, image_size=32)
    robot = load_embodiment(spec.embodiment)
    assert spec.channels == robot.channels
    assert spec.control_hz == robot.control_hz
    assert tuple(camera.name for camera in spec.cameras) == robot.cameras


def test_tasks_have_sentences_of_their_own_and_may_be_named_without_a_version():
    assert len({task.instruction for task in TABLE_TOP.values()}) == len(TABLE_TOP)
    spec = describe_suite("maniskill", tasks=["StackCube", "PullCubeTool-v1"])
    assert spec.tasks == ("StackCube-v1", "PullCubeTool-v1")
    assert spec.max_steps == 100


@pytest.mark.parametrize(
    ("suite", "options", "said"),
    [
        ("maniskill", {"tasks": ["PickCub"]}, "Did you mean 'PickCube'"),
        ("maniskill", {"tasks": []}, "name at least one"),
        ("maniskill", {"tasks": ["PickCube", "PickCube-v1"]}, "each once"),
        ("maniskill", {"renderer": "fast"}, "choose one of tuned, default"),
        ("maniskill", {"cameras": ["hand_camera"]}, "choose of ego, cam_right_wrist"),
        ("simpler-widowx", {"tasks": ["PickCube-v1"]}, "unknown task 'PickCube-v1'"),
        ("simpler-widowx", {"image_size": 0}, "image_size must be at least 1"),
        ("simpler-widowx", {"cameras": ["ego"]}, "cameras"),
    ],
)
def test_a_mistake_is_one_message(suite, options, said):
    with pytest.raises(UserError, match=said):
        describe_suite(suite, **options)


def turned(angle, axis):
    """[3, 3] about one of the axes."""
    one, other = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[one, one] = matrix[other, other] = np.cos(angle)
    matrix[one, other], matrix[other, one] = -np.sin(angle), np.sin(angle)
    return matrix


@pytest.mark.parametrize(("robot", "scale"), [(PANDA, -0.1), (WIDOWX, 1.0)])
def test_a_turn_is_the_same_rotation_for_both(robot, scale):
    ours = np.array([0.05, -0.02, 0.01, 0.1, -0.07, 0.04, 1.0], np.float32)
    theirs = robot.theirs(ours)
    x, y, z = theirs[3:6] * scale
    roll, pitch, yaw = ours[3:6]
    np.testing.assert_allclose(
        turned(x, 0) @ turned(y, 1) @ turned(z, 2),
        turned(yaw, 2) @ turned(pitch, 1) @ turned(roll, 0),
        atol=1e-6,
    )
    assert not np.allclose([x, y, z], ours[3:6], atol=1e-4), "the order matters here"


def test_the_ends_of_the_channels_are_the_ends_of_the_controllers():
    low, high = ([getattr(channel, end) for channel in PANDA.channels] for end in ("low", "high"))
    np.testing.assert_allclose(PANDA.theirs(np.array(high))[[0, 1, 2, 6]], 1.0)
    np.testing.assert_allclose(PANDA.theirs(np.array(low))[[0, 1, 2, 6]], -1.0)
    still = np.zeros(7)
    assert WIDOWX.theirs(still)[6] == -1.0, "closed"
    assert WIDOWX.theirs(still + 1)[6] == 1.0, "open"


def test_the_hand_is_told_in_the_frame_of_the_base():
    base = np.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0])
    half = np.sqrt(0.5)
    hand = np.array([0.9, 1.8, 3.3, 0.0, 0.0, half, half])
    told = hand_state(base, hand, np.array([0.01, 0.02]))
    np.testing.assert_allclose(told, [0.1, 0.2, 0.3, np.pi / 2, 0.0, 0.0, 0.01, 0.02], atol=1e-6)
    for sign in (1, -1):
        same = np.concatenate([hand[:3], sign * hand[3:]])
        np.testing.assert_allclose(hand_state(base, same, told[6:]), told, atol=1e-6)
    at_rest = hand_state(base, base, np.zeros(2))
    np.testing.assert_array_equal(at_rest, np.zeros(8))
