"""Arms of the synthesis: published poses, agreement with MuJoCo, inverse kinematics, distances."""

import mujoco
import numpy as np
import pytest

from actors.synthesis.mujoco_arm import MujocoArm
from vlarl.config.paths import configs_folder
from vlarl.errors import ConfigError
from vlarl.synthesis.arm import arm_names, load_arm, read_arm
from vlarl.synthesis.collision import (
    Cylinder,
    Segments,
    arm_segments,
    cylinder_clearance,
    cylinders_clearance,
    distance,
    self_clearance,
    table_clearance,
)
from vlarl.synthesis.inverse_kinematics import Target, comfortable, posture_yaw, reached, solve
from vlarl.synthesis.kinematics import jacobian, link_frames, quaternion_of, tool_point
from vlarl.synthesis.pose import Poses

ARMS = ("franka_panda", "kinova_gen3", "tm12", "ur10e", "ur5e", "xarm7")
FLANGES = {
    # The makers' own figures for the pose in which all joints are at zero.
    "franka_panda": (0.088, 0, 0.333 + 0.316 + 0.384 - 0.107),
    "kinova_gen3": (0, -0.0246, 1.1873),
    "tm12": (0, -0.26945, 1.4652),
    "ur10e": (-1.18425, -0.2907, 0.06085),
    "ur5e": (-0.8172, -0.2329, 0.0628),
    "xarm7": (0.206, 0, 0.1205),
}


def configurations(arm, count, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(arm.low, arm.high, (count, arm.joints))


def test_all_arms_of_the_paper_are_there():
    assert tuple(arm_names()) == ARMS


@pytest.mark.parametrize("name", ARMS)
def test_the_flange_is_where_the_maker_says_it_is(name):
    arm = load_arm(name)
    flange = link_frames(arm, np.zeros((arm.joints, 1)))[-1].origin[:, 0]
    assert flange == pytest.approx(FLANGES[name], abs=2e-3)


@pytest.mark.parametrize("name", ARMS)
def test_forward_kinematics_agree_with_mujoco(name):
    arm = load_arm(name)
    other, q = MujocoArm(arm), configurations(arm, 50)
    frames = link_frames(arm, q.T)
    tip, tool = tool_point(arm, frames), frames[-1]
    quaternions, matrix = quaternion_of(tool.x, tool.y, tool.z), np.empty(9)
    for row in range(50):
        position, rotation = other.tool_pose(q[row])
        assert tip[:, row] == pytest.approx(position, abs=1e-9)
        assert np.stack([tool.x, tool.y, tool.z], axis=1)[..., row] == pytest.approx(
            rotation, abs=1e-9
        )
        mujoco.mju_quat2Mat(matrix, quaternions[row])
        assert matrix.reshape(3, 3) == pytest.approx(rotation, abs=1e-9)
    assert np.linalg.norm(quaternions, axis=1) == pytest.approx(1)
    assert (quaternions[:, 0] >= 0).all()


@pytest.mark.parametrize("name", ARMS)
def test_single_precision_is_good_to_a_hundredth_of_a_millimeter(name):
    arm = load_arm(name)
    q = configurations(arm, 200).T
    exact, quick = (tool_point(arm, link_frames(arm, x)) for x in (q, q.astype(np.float32)))
    assert quick.dtype == np.float32
    assert np.abs(exact - quick).max() < 1e-5


@pytest.mark.parametrize("name", ARMS)
def test_the_jacobian_is_the_change_of_the_pose(name):
    arm = load_arm(name)
    q, step = configurations(arm, 5), 1e-6
    exact = jacobian(arm, link_frames(arm, q.T))
    for joint in range(arm.joints):
        nudge = step * np.eye(arm.joints)[joint]
        ahead, behind = link_frames(arm, (q + nudge).T), link_frames(arm, (q - nudge).T)
        moved = (tool_point(arm, ahead) - tool_point(arm, behind)) / (2 * step)
        assert exact[:, :3, joint] == pytest.approx(moved.T, abs=1e-6)
        change = (ahead[-1].x - behind[-1].x) / (2 * step)
        x = link_frames(arm, q.T)[-1].x
        assert np.cross(exact[:, 3:, joint], x.T) == pytest.approx(change.T, abs=1e-6)


@pytest.mark.parametrize("name", ARMS)
def test_inverse_kinematics_reach_what_forward_kinematics_show(name):
    arm, random = load_arm(name), np.random.default_rng(3)
    low, high = arm.reach_radius
    angle, radius = random.uniform(-2, 2, 200), random.uniform(low, high, 200)
    place = [radius * np.cos(angle), radius * np.sin(angle), random.uniform(0.03, 0.3, 200)]
    position = np.stack(place, axis=1)
    turn, lean = random.uniform(-1.2, 1.2, 200), random.uniform(-0.2, 0.2, (200, 2))
    target = Poses(position, angle + posture_yaw(arm) + turn, lean)
    q, good = solve(arm, target, comfortable(arm, position), random)
    assert good.mean() > 0.9
    other = MujocoArm(arm)
    axes = np.stack(target.axes(), axis=1)
    for row in np.flatnonzero(good):
        found, rotation = other.tool_pose(q[row])
        assert np.linalg.norm(found - position[row]) < 1e-3
        assert np.abs(rotation - axes[..., row]).max() < 1e-2
        assert (arm.low < q[row]).all()
        assert (q[row] < arm.high).all()


def test_a_pose_out_of_reach_or_upside_down_is_not_reached():
    arm = load_arm("ur5e")
    far = Poses(np.array([[3.0, 0, 0.2]]), np.zeros(1), np.zeros((1, 2)))
    q, good = solve(arm, far, comfortable(arm, far.position), np.random.default_rng(0))
    assert not good[0]
    # Half a turn off, the cross products of the axes vanish as they do at the target itself.
    here = link_frames(arm, q.T)
    yaw = np.arctan2(here[-1].x[1], here[-1].x[0])
    turned = Poses(tool_point(arm, here).T, yaw + np.pi, np.zeros((1, 2)))
    assert not reached(arm, q, Target.of(turned))[0]


def test_a_lean_turns_the_tool_about_the_axes_of_its_yaw():
    ahead = Poses(np.zeros((1, 3)), np.array([np.pi / 2]), np.array([[0.0, 0.1]]))
    x, y, z = (axis[:, 0] for axis in ahead.axes())
    # A turn by 0.1 about world -x takes the tool's z from straight down towards +y.
    assert z == pytest.approx([0, -np.sin(0.1), -np.cos(0.1)], abs=1e-12)
    assert x == pytest.approx([0, np.cos(0.1), -np.sin(0.1)], abs=1e-12)
    assert np.cross(x, y) == pytest.approx(z, abs=1e-12)


def column(*values):
    return np.array(values, np.float64)[:, None]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # parallel, crossing, end to end, and two points
        (((0, 0, 0), (1, 0, 0)), ((0, 0.5, 0), (1, 0.5, 0)), 0.5),
        (((0, 0, 0), (1, 0, 0)), ((0.5, -1, 0.3), (0.5, 1, 0.3)), 0.3),
        (((0, 0, 0), (1, 0, 0)), ((1.3, 0.4, 0), (2, 0.4, 0)), 0.5),
        (((0, 0, 0), (0, 0, 0)), ((0, 3, 4), (0, 3, 4)), 5.0),
    ],
)
def test_distance_of_capsules_by_hand(first, second, expected):
    a = Segments(column(*first[0]), column(*first[1]), 0.1)
    b = Segments(column(*second[0]), column(*second[1]), 0.05)
    assert distance(a, b)[0] == pytest.approx(expected - 0.15)
    assert distance(b, a)[0] == pytest.approx(expected - 0.15)


def test_clearance_of_cylinders_by_hand():
    thing = Cylinder(column(0, 0, 0), np.array([0.1]), np.array([0.2]))
    beside = Segments(column(0.3, 0, 0.1), column(0.3, 0, 0.1), 0.05)
    above = Segments(column(0.05, 0, 0.5), column(0.05, 0, 0.4), 0.05)
    through = Segments(column(-1, 0, 0.1), column(1, 0, 0.1), 0.05)
    assert cylinder_clearance([beside], thing)[0] == pytest.approx(0.15)
    assert cylinder_clearance([above], thing)[0] == pytest.approx(0.15)
    assert cylinder_clearance([through, beside], thing)[0] < -0.1
    other = Cylinder(column(0.3, 0.4, 0.1), np.array([0.1]), np.array([0.2]))
    over = Cylinder(column(0, 0, 0.25), np.array([0.1]), np.array([0.2]))
    assert cylinders_clearance(thing, other)[0] == pytest.approx(0.3)
    assert cylinders_clearance(over, thing)[0] == pytest.approx(0.05)
    assert cylinders_clearance(thing, thing)[0] < 0


@pytest.mark.parametrize("name", ARMS)
def test_self_clearance_agrees_with_mujoco(name):
    arm = load_arm(name)
    other, q = MujocoArm(arm), configurations(arm, 300)
    ours = self_clearance(arm, arm_segments(arm, link_frames(arm, q.T)))
    allowed = other.allowed({("arm", "table")})
    for slot in range(3):
        other.set_place(slot, None)
    theirs = np.array([bool(other.contacts(row, allowed, 0.0)) for row in q])
    clear = np.abs(ours) > 1e-6
    assert ((ours < 0) == theirs)[clear].all()
    assert 0.02 < theirs.mean() < 0.98


def test_bad_postures_are_seen():
    arm = load_arm("franka_panda")
    folded = np.array([0, 1.7, 0, -3.0, 0, 0.0, 0])
    low = np.array([0, 1.6, 0, -0.6, 0, 1.0, 0.8])
    fine, folded, low = (
        arm_segments(arm, link_frames(arm, q[:, None])) for q in (arm.posture, folded, low)
    )
    assert self_clearance(arm, fine)[0] > 0.01
    assert table_clearance(arm, fine)[0] > 0.05
    assert self_clearance(arm, folded)[0] < 0
    assert table_clearance(arm, low)[0] < 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("posture: [0.0,", "posture: [9.0,", "posture"),
        ("velocity: 3.14,", "velocity: -3.14,", "joints.velocity"),
        ("radius: [0.3, 0.68]", "radius: [0.9, 0.68]", "reach.radius"),
        ("link: tool", "link: 12", "capsules.link"),
        ("robot_tag: xArm7", "robot: xArm7", "KeyError 'robot_tag'"),
        ("low: -2.059", "low: none", "ValueError"),
    ],
)
def test_a_wrong_file_is_one_message(tmp_path, old, new, message):
    text = (configs_folder() / "arms" / "xarm7.yaml").read_text()
    assert old in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message) as raised:
        read_arm(file)
    assert str(file) in str(raised.value)


def test_an_unknown_arm_is_told_what_there_is():
    with pytest.raises(ConfigError, match="Did you mean ur5e"):
        load_arm("ur5")
