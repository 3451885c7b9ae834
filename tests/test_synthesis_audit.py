"""The audit finds nothing in what synthesis made, and every defect that is planted there."""

import json
from dataclasses import replace

import numpy as np
import pytest

from actors import cli
from actors.synthesis.audit import audit, coverage, defects
from actors.synthesis.checks import BETWEEN, interpolated
from actors.synthesis.mujoco_arm import MujocoArm
from actors.synthesis.timeline import Timeline, handlings
from vlarl.synthesis.arm import arm_names, load_arm
from vlarl.synthesis.dataset import Entry, Recipe, SynthesisDataset, append, open_folder
from vlarl.synthesis.generator import make_shard
from vlarl.synthesis.motion import RATE
from vlarl.synthesis.observation import observe
from vlarl.synthesis.scene import GOALS, OBSTACLE, OTHER, TARGET, TEMPLATES
from vlarl.synthesis.shard import Shard

ROBOT = "franka_panda"


@pytest.fixture(scope="module")
def mujoco_arm():
    return MujocoArm(load_arm(ROBOT))


@pytest.fixture(scope="module")
def shards():
    return {template: make_shard(load_arm(ROBOT), template, 2, 0, 12) for template in TEMPLATES}


def with_poses(mujoco_arm, trajectory, q):
    """The trajectory with other joint positions, and records that agree with them."""
    import mujoco

    dq, pose, quaternion = np.gradient(q, 1 / RATE, axis=0), [], np.empty(4)
    for row in q.astype(np.float64):
        position, rotation = mujoco_arm.tool_pose(row)
        mujoco.mju_mat2Quat(quaternion, rotation.ravel())
        pose.append(np.concatenate([position, quaternion]))
    return replace(
        trajectory,
        joint_position=q.astype(np.float32),
        joint_velocity=dq.astype(np.float32),
        tool_pose=np.array(pose, np.float32),
    )


def changed(trajectory, name, index, value):
    """The trajectory with one number of an array replaced."""
    values = np.array(getattr(trajectory, name))
    values[index] = value
    return replace(trajectory, **{name: values})


def with_scene(trajectory, slot, **values):
    scene = {name: np.array(array) for name, array in trajectory.scene.items()}
    for name, value in values.items():
        scene[name][slot] = value
    return replace(trajectory, scene=scene)


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_synthesis_makes_has_no_defect(mujoco_arm, shards, template):
    for row in range(6):
        trajectory = shards[template].trajectory(row)
        assert defects(mujoco_arm, trajectory) == []


@pytest.mark.parametrize("robot", sorted(set(arm_names()) - {ROBOT}))
def test_nor_with_the_other_arms(robot):
    arm = load_arm(robot)
    other = MujocoArm(arm)
    for template in ("pick_place", "rotate_toward"):
        shard = make_shard(arm, template, 4, 0, 3)
        assert [defects(other, shard.trajectory(row)) for row in range(3)] == [[]] * 3


NAN, HIGH, FAST = np.nan, 3.5, 9.0


@pytest.mark.parametrize(
    ("name", "index", "value", "kind"),
    [
        ("joint_position", (50, 1), NAN, "not finite"),
        ("joint_position", (50, 1), HIGH, "joint limit"),
        ("joint_velocity", (50, 1), FAST, "velocity"),
        ("joint_velocity", (50, 6), 0.8, "acceleration"),
        ("joint_velocity", (0, 2), 0.1, "not at rest at the ends"),
        ("tool_pose", (30, 0), 0.0, "tool pose"),
        ("tool_pose", (30, slice(3, 7)), [1, 0, 0, 0], "tool pose"),
        ("gripper", 0, 1.5, "gripper"),
    ],
)
def test_planted_numbers_are_found(mujoco_arm, shards, name, index, value, kind):
    trajectory = changed(shards["pick_place"].trajectory(0), name, index, value)
    assert kind in defects(mujoco_arm, trajectory)


def test_planted_small_errors_are_found(mujoco_arm, shards):
    trajectory = shards["pull"].trajectory(1)
    pose = trajectory.tool_pose.copy()
    pose[:, 2] += 5e-4
    assert defects(mujoco_arm, replace(trajectory, tool_pose=pose)) == ["tool pose"]
    shifted = replace(trajectory, joint_velocity=np.roll(trajectory.joint_velocity, 3, axis=0))
    assert "velocity is not the positions' change" in defects(mujoco_arm, shifted)
    quick = replace(
        trajectory,
        **{
            name: getattr(trajectory, name)[::4]
            for name in ("joint_position", "joint_velocity", "tool_pose", "gripper")
        },
        segment_ends=trajectory.segment_ends // 4,
    )
    assert {"acceleration", "velocity is not the positions' change"} <= set(
        defects(mujoco_arm, quick)
    )
    short = replace(trajectory, gripper=trajectory.gripper[:-1])
    assert defects(mujoco_arm, short) == ["length"]


@pytest.mark.parametrize(
    ("posture", "kind"),
    [
        ([0, 1.7, 0, -3.0, 0, 0.0, 0], "arm hits itself"),
        ([0, 1.6, 0, -0.6, 0, 1.0, 0.8], "arm hits the table"),
    ],
)
def test_planted_collisions_of_the_arm_are_found(mujoco_arm, shards, posture, kind):
    trajectory = shards["pull"].trajectory(0)
    q = trajectory.joint_position.copy()
    # The bad posture lies between two records only: nothing but the dense check sees it.
    q[:] = np.array(posture, np.float32)
    assert kind in defects(mujoco_arm, with_poses(mujoco_arm, trajectory, q))


def test_a_collision_between_two_records_is_found(mujoco_arm, shards):
    from actors.synthesis.checks import collision_defects

    trajectory = shards["push"].trajectory(0)
    good, bad = load_arm(ROBOT).posture, np.array([0, 1.6, 0, -0.6, 0, 1.0, 0.8])
    q = np.repeat(good[None], len(trajectory), axis=0)
    # At the records the posture is good; the velocities swing it out of it and back in between.
    dq = np.zeros_like(q)
    dq[40], dq[41] = 8 * RATE * (bad - good), -8 * RATE * (bad - good)
    planted = replace(trajectory, joint_position=q, joint_velocity=dq)
    seen = observe("push", trajectory.tool_pose, trajectory.gripper, trajectory.segment_ends)
    still = replace(trajectory, joint_position=q, joint_velocity=0 * q)
    assert "arm hits the table" in set(collision_defects(mujoco_arm, planted, seen))
    assert "arm hits the table" not in set(collision_defects(mujoco_arm, still, seen))


def test_planted_obstacles_are_found(mujoco_arm, shards):
    trajectory = shards["pick_place"].trajectory(2)
    (handling,) = handlings(trajectory)
    middle = (handling.taken + handling.lowering) // 2
    foot = trajectory.tool_pose[middle, :3] * [1, 1, 0]
    tall = {"position": foot, "radius": 0.04, "height": trajectory.tool_pose[middle, 2] + 0.05}
    assert "arm hits a thing" in defects(mujoco_arm, with_scene(trajectory, OBSTACLE, **tall))
    # So low that only what is carried meets it.
    for row in range(12):
        trajectory = shards["pull"].trajectory(row)
        (handling,) = handlings(trajectory)
        middle = (handling.taken + handling.released) // 2
        foot = trajectory.tool_pose[middle, :3] * [1, 1, 0]
        flat = {"position": foot, "radius": 0.01, "height": 0.006}
        planted = with_scene(trajectory, OBSTACLE, **flat)
        assert "carried thing hits a thing" in defects(mujoco_arm, planted)


def test_a_thing_dragged_through_the_table_is_found(mujoco_arm, shards):
    trajectory = shards["pull"].trajectory(0)
    sunk = with_scene(
        trajectory, TARGET, position=trajectory.scene["position"][TARGET] - [0, 0, 0.02]
    )
    assert "carried thing in the table" in defects(mujoco_arm, sunk)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_missed_goal_is_found(mujoco_arm, shards, template):
    trajectory = shards[template].trajectory(3)
    final = trajectory.scene["final_position"][TARGET] + [0.01, 0, 0]
    assert "goal is missed" in defects(
        mujoco_arm, with_scene(trajectory, TARGET, final_position=final)
    )
    start = trajectory.scene["position"][TARGET] + [0.03, 0.03, 0]
    moved = defects(mujoco_arm, with_scene(trajectory, TARGET, position=start))
    assert "thing is not where it is taken" in moved
    if template in ("rotate_toward", "rotate_reposition"):
        yaw = trajectory.scene["final_yaw"][TARGET] + 0.2
        assert "goal is missed" in defects(
            mujoco_arm, with_scene(trajectory, TARGET, final_yaw=yaw)
        )


def test_a_gripper_that_never_closes_is_found(mujoco_arm, shards):
    trajectory = shards["swap"].trajectory(0)
    limp = replace(trajectory, gripper=0 * trajectory.gripper)
    assert "nothing is taken" in defects(mujoco_arm, limp)


def test_untrue_instructions_are_found(mujoco_arm, shards):
    pushed, turned = shards["push"].trajectory(0), shards["rotate_toward"].trajectory(0)
    wrong = replace(pushed, instruction="push the sponge 99 cm toward yourself")
    assert {"instruction: cm", "instruction: things"} <= set(defects(mujoco_arm, wrong))
    facing = [
        defects(
            mujoco_arm, replace(turned, instruction=turned.instruction.split(" its ")[0] + text)
        )
        for text in (" its part faces left", " its part faces right")
    ]
    assert any("instruction: facings" in each for each in facing)


def test_things_follow_the_tool_that_holds_them(shards):
    trajectory = shards["swap"].trajectory(1)
    seen = observe("swap", trajectory.tool_pose, trajectory.gripper, trajectory.segment_ends)
    timeline, scene = Timeline(trajectory, seen), trajectory.scene
    assert [handling.slot for handling in timeline.handlings] == [TARGET, OTHER, TARGET]
    tool, end = trajectory.tool_pose[-1, :3].astype(float), float(len(trajectory))
    for slot, other in ((TARGET, OTHER), (OTHER, TARGET)):
        assert timeline.place(slot, 0, tool) == pytest.approx(scene["position"][slot])
        assert timeline.place(slot, end, tool) == pytest.approx(scene["position"][other], abs=2e-3)
    first = timeline.handlings[0]
    step = (first.taken + first.released) // 2
    assert timeline.held(step) == TARGET
    assert timeline.active(step) == first
    at = trajectory.tool_pose[step, :3].astype(float)
    offset = at - timeline.place(TARGET, step, at)
    assert offset == pytest.approx(seen.taken[0] - scene["position"][TARGET], abs=1e-6)
    assert timeline.place(OBSTACLE, step, at) is None


def test_only_what_receives_may_be_met(shards):
    goals = {GOALS[int(shards["pick_place"].trajectory(row).scene["goal"])] for row in range(12)}
    assert "receive" in goals
    for row in range(12):
        trajectory = shards["pick_place"].trajectory(row)
        seen = observe(
            "pick_place", trajectory.tool_pose, trajectory.gripper, trajectory.segment_ends
        )
        timeline = Timeline(trajectory, seen)
        (handling,) = timeline.handlings
        assert not timeline.receiving(handling.lowering - 1)
        receive = GOALS[int(trajectory.scene["goal"])] == "receive"
        assert timeline.receiving(handling.released) == receive


def test_interpolation_goes_through_the_records_and_their_velocities():
    t = np.arange(30) / RATE
    q = np.stack([t**3, np.sin(t)], axis=1)
    dq = np.stack([3 * t**2, np.cos(t)], axis=1)
    dense = interpolated(q, dq)
    fine = np.arange(len(dense)) / RATE / BETWEEN
    assert dense[::BETWEEN] == pytest.approx(q)
    assert dense[:, 0] == pytest.approx(fine**3, abs=1e-12)
    assert dense[:, 1] == pytest.approx(np.sin(fine), abs=1e-8)


def test_coverage_counts_the_cubes_that_are_visited():
    arm = load_arm("xarm7")
    random = np.random.default_rng(0)
    everywhere = random.uniform([-0.7, -0.7, 0], [0.7, 0.7, 0.5], (200_000, 3))
    assert coverage(arm, everywhere) == 1
    left = everywhere[everywhere[:, 1] > 0]
    assert coverage(arm, left) == pytest.approx(0.5, abs=0.08)
    assert coverage(arm, np.array([[0.0, 0, 0.1]])) == 0


def test_the_command_names_defects_and_their_trajectories(tmp_path, shards, capsys):
    recipe = Recipe(0, (ROBOT,), ("push", "pull"), 24)
    open_folder(tmp_path, recipe)
    for job in recipe.jobs():
        shard = shards[job.template]
        arrays = {name: np.array(values) for name, values in shard.arrays.items()}
        if job.template == "push":
            arrays["joint_position"][arrays["offsets"][7] + 20, 0] += 0.5
        path = tmp_path / job.name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = Shard(ROBOT, job.template, arrays).write(path)
        append(tmp_path, Entry(job.name, ROBOT, job.template, 12, shard.steps, size))
    assert cli.run(["synth", "audit", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["samples"] == 24
    assert set(report["kinds"]) >= {"velocity", "acceleration", "tool pose"}
    assert {name for names in report["kinds"].values() for name in names} == {
        f"{ROBOT}/push/00000:7"
    }
    assert report["defects"] == sum(map(len, report["kinds"].values()))
    assert report["instructions"]["of"] == 24
    assert report["instructions"]["different"] > 20
    assert f"{ROBOT}/push/00000:7" in captured.err
    part = audit(SynthesisDataset(tmp_path), 5, seed=1)
    assert part.samples == 5
    assert 0 < part.coverage[ROBOT] < 1
