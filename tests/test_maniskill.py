"""ManiSkill's suites as far as they go without the simulator: tasks, specs, robots, mistakes."""

import numpy as np
import pytest

from envservers.maniskill import rotations
from envservers.maniskill.expert import Expert
from envservers.maniskill.planner import Motion
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
        ("simpler-widowx", {"image_size": 0}, "image_size = 0: must be at least 1"),
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


def test_on_a_gpu_a_turn_is_told_as_axis_times_angle():
    ours = np.array([0.05, -0.02, 0.01, 0.1, -0.07, 0.04, 1.0], np.float32)
    theirs = PANDA.theirs(ours, on_gpu=True)
    np.testing.assert_allclose(rotations.fixed_angles(theirs[3:6] * -0.1), ours[3:6], atol=1e-7)
    np.testing.assert_array_equal(theirs[[0, 1, 2, 6]], PANDA.theirs(ours)[[0, 1, 2, 6]])
    assert not np.allclose(theirs, PANDA.theirs(ours), atol=1e-3)


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


def quaternion(vector):
    """[4] of a turn, given as axis times angle."""
    angle = np.linalg.norm(vector)
    return np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) / angle * np.asarray(vector)])


def test_angles_about_fixed_axes_are_the_turn_they_come_from():
    vector = np.array([0.3, -0.5, 0.2])
    roll, pitch, yaw = rotations.fixed_angles(vector)
    turn = quaternion(vector)
    np.testing.assert_allclose(rotations.rotation_vector(turn), vector, atol=1e-12)
    np.testing.assert_allclose(rotations.rotation_vector(-turn), vector, atol=1e-12)
    for axis in np.eye(3):
        np.testing.assert_allclose(
            turned(yaw, 2) @ turned(pitch, 1) @ turned(roll, 0) @ axis,
            rotations.turned(turn, axis),
            atol=1e-12,
        )
    np.testing.assert_array_equal(rotations.fixed_angles(np.zeros(3)), np.zeros(3))


class Planned:
    """Stands in for the planner: down to a thing, which is then carried aside and turned."""

    def __init__(self, found=True):
        self.found, self.asked = found, []

    def solve(self, task, seed):
        self.asked.append((task, seed))
        if not self.found:
            return None
        down = np.linspace([0.0, 0.0, 0.3], [0.1, 0.0, 0.05], 40)
        aside = np.linspace([0.1, 0.0, 0.05], [0.1, 0.2, 0.2], 60)
        turns = [quaternion([1e-9, 0.0, 0.5 * share]) for share in np.linspace(0, 1, 60)]
        poses = [np.concatenate([place, quaternion([1e-9, 0, 0])]) for place in down]
        poses += [np.concatenate([place, turn]) for place, turn in zip(aside, turns, strict=True)]
        return Motion(np.array(poses), np.repeat([1.0, -1.0], [40, 60]), ("",) * 100, {}, True)


BASE = np.concatenate([[0.5, 0.0, 0.0], quaternion([0.0, 0.0, 1.2])])


def nowhere(thing):
    raise AssertionError(f"no way of {thing} was planned")


def moved(hand, action, reached=0.4):
    """Where a hand is that does `reached` of what it is told, in the frame of `BASE`."""
    base = BASE[3:]
    turn = rotations.turned(base, np.asarray(action[3:6], float) * reached)
    angle = np.linalg.norm(turn)
    spun = rotations.product(quaternion(turn), hand[3:]) if angle > 1e-9 else hand[3:]
    return np.concatenate([hand[:3] + rotations.turned(base, action[:3] * reached), spun])


def test_the_expert_goes_the_planned_way_and_closes_the_hand_where_it_should():
    expert, planned = Expert(planner := Planned(), PANDA), Planned().solve("", 0)
    expert.begin("PickCube-v1", 3)
    hand = np.concatenate([[0.02, -0.03, 0.32], quaternion([0.0, 0.0, 0.2])])
    closed_at, steps = None, 0
    while np.linalg.norm(hand[:3] - planned.poses[-1, :3]) > 0.004 and steps < 60:
        action = expert.act(BASE, hand, nowhere)
        assert (np.abs(action) <= np.array([PANDA.reach] * 3 + [PANDA.turn] * 3 + [1]) + 1e-6).all()
        np.testing.assert_array_equal(expert.act(BASE, hand, nowhere), action)
        if closed_at is None and action[6] < 0:
            closed_at = hand
        hand, steps = moved(hand, action), steps + 1
        expert.look_anew()
    assert steps < 40, "it hurries: the plan has 100 steps"
    assert np.linalg.norm(closed_at[:3] - planned.poses[39, :3]) < 0.004
    turn = rotations.product(planned.poses[-1, 3:], rotations.conjugate(hand[3:]))
    assert np.linalg.norm(rotations.rotation_vector(turn)) < 0.2
    assert planner.asked == [("PickCube-v1", 3)], "one plan an episode"


GOAL = np.concatenate([[0.3, 0.1, 0.2], quaternion([0.0, 0.0, 0.6])])
AXIS = rotations.turned(GOAL[3:], np.array([1.0, 0.0, 0.0]))


class PlannedToFit:
    """Stands in for the planner: picks a pin, rests 8 mm aside of a hole, and jams there."""

    def solve(self, task, seed):
        upright = quaternion([1e-9, 0.0, 0.0])
        before = GOAL[:3] - 0.1 * AXIS + [0, 0, 0.008]
        down = np.linspace([0.0, 0.0, 0.3], [0.0, 0.0, 0.05], 30)
        there = np.linspace([0.0, 0.0, 0.05], before, 40)
        rest = np.repeat(before[None], 5, axis=0)
        jammed = np.linspace(before, before + 0.03 * AXIS, 25)
        places = np.concatenate([down, there, rest, jammed])
        turns = [upright] * 30 + [quaternion([1e-9, 0, 0.6 * s]) for s in np.linspace(0, 1, 40)]
        turns += [GOAL[3:]] * 30
        poses = np.concatenate([places, np.array(turns)], axis=1)
        held = ("",) * 32 + ("pin",) * 68
        # The planned hand holds the pin in its middle; while the hand comes, the pin lies there.
        pin = poses.copy()
        pin[:30] = poses[30]
        return Motion(poses, np.repeat([1.0, -1.0], [30, 70]), held, {"pin": pin}, False, GOAL)


def test_what_has_to_fit_is_led_straight_into_its_goal_however_it_slipped_in_the_hand():
    expert = Expert(PlannedToFit(), PANDA)
    expert.begin("PlugCharger-v1", 0)
    hand = np.concatenate([[0.02, 0.01, 0.32], quaternion([1e-9, 0.0, 0.0])])
    pin, inside = np.concatenate([[0.0, 0.0, 0.05], quaternion([1e-9, 0.0, 0.0])]), None
    aside = []
    for _ in range(150):
        action = expert.act(BASE, hand, {"pin": pin}.__getitem__)
        if action[6] < 0 and inside is None:  # it slips as the fingers close
            back, slip = rotations.conjugate(hand[3:]), quaternion([0.0, 0.15, 0.1])
            inside = np.array([0.004, 0.012, -0.006]), rotations.product(back, slip)
        hand = moved(hand, action)
        if inside is not None:
            place = hand[:3] + rotations.turned(hand[3:], inside[0])
            pin = np.concatenate([place, rotations.product(hand[3:], inside[1])])
        x, *off = rotations.turned(rotations.conjugate(GOAL[3:]), pin[:3] - GOAL[:3])
        if x > -0.095:
            aside.append(np.linalg.norm(off))
        if x > -0.002:
            break
        expert.look_anew()
    turn = rotations.product(GOAL[3:], rotations.conjugate(pin[3:]))
    assert x > -0.002, "it is in"
    assert max(aside) < 0.001, "straight all the way, where the plan was 8 mm aside"
    assert np.linalg.norm(rotations.rotation_vector(turn)) < 0.02


def test_an_expert_goes_on_from_the_progress_of_another():
    one, other = Expert(Planned(), PANDA), Expert(Planned(), PANDA)
    one.begin("PickCube-v1", 3)
    hand = np.concatenate([[0.0, 0.0, 0.3], quaternion([1e-9, 0.0, 0.0])])
    for _ in range(20):
        hand = moved(hand, one.act(BASE, hand, nowhere))
        one.look_anew()
    other.begin("PickCube-v1", 3)
    other.progress = one.progress
    np.testing.assert_array_equal(other.act(BASE, hand, nowhere), one.act(BASE, hand, nowhere))


def test_where_no_way_is_found_the_hand_stays():
    expert = Expert(Planned(found=False), PANDA)
    expert.begin("PickCube-v1", 3)
    hand = np.concatenate([[0.0, 0.1, 0.3], quaternion([0.0, 0.0, 0.4])])
    np.testing.assert_allclose(expert.act(BASE, hand, nowhere), [0, 0, 0, 0, 0, 0, 1], atol=1e-12)
