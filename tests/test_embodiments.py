"""Robots as data: every shipped file, the paper's Table 2, prompts, codec, and every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from envservers.registry import make_suite
from vlarl.codec import ActionCodec, ActionStats
from vlarl.config import embodiments
from vlarl.config.embodiments import embodiment_names, load_embodiment
from vlarl.config.paths import configs_folder
from vlarl.contract import Contract
from vlarl.embodiment import MAX_CHANNELS, Embodiment
from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.presets import tabletop_contract
from vlarl.prompt import prompt
from vlarl.types import CHANNEL_KINDS, VIEWS, CameraSpec, Channel, EnvSpec

ROOT = Path(__file__).resolve().parents[1]
NAMES = embodiment_names()
HORIZON = 16

TABLE_2 = [
    ("WidowX", "single", "delta EEF + G", "widowx_eef", 7),
    ("Google Robot", "single", "delta EEF + G", "google_robot_eef", 7),
    ("Franka Panda", "single", "delta EEF + G", "franka_panda_eef", 7),
    ("Franka Panda", "single", "abs joint + G", "franka_panda_joint", 8),
    ("Franka Panda", "dual", "delta EEF + G", "franka_panda_dual_eef", 14),
    ("Franka Panda", "dual", "abs joint + G", "franka_panda_dual_joint", 16),
    ("ARX5", "dual", "delta EEF + G", "arx5_eef", 16),
    ("Fourier GR-1", "dual", "delta EEF + G", "fourier_gr1_eef", 14),
    ("Mobile ALOHA", "dual", "delta EEF + G", "mobile_aloha_eef", 14),
    ("Mobile ALOHA", "dual", "abs joint + G", "mobile_aloha_joint", 14),
    ("AgiBot A2-D", "dual", "abs joint + G", "agibot_a2d_joint_gripper", 20),
    ("AgiBot A2-D", "dual", "abs joint + DH", "agibot_a2d_joint_hand", 30),
    ("Galaxea R1", "dual", "abs joint + G", "galaxea_r1_joint", 18),
    ("AIRBOT MMK2", "dual", "abs joint + DH", "airbot_mmk2_joint_hand", 36),
    ("TienKung", "dual", "abs joint + G", "tienkung_joint_gripper", 16),
    ("TienKung", "dual", "abs joint + DH", "tienkung_joint_hand", 26),
    ("Real Human", "dual", "delta EEF", "human_hands", 32),
]
"""Robot, arms and action type as in the paper; the file and the channels of its actions."""

PARTS = {
    "delta_position": "delta EEF",
    "rotation_euler": "delta EEF",
    "rotation_axis_angle": "delta EEF",
    "rotation_quaternion": "delta EEF",
    "eigengrasp": "delta EEF",
    "absolute_joint": "abs joint",
    "gripper": "G",
    "dexterous_hand": "DH",
}

GOLDEN = {
    "widowx_eef": "The robot is WidowX with single arm. The control frequency is 5 Hz. "
    "Please predict the next 16 control actions to execute the following task: close the drawer.",
    "google_robot_eef": "The robot is Google Robot with single arm, and mobile base. "
    "The control frequency is 3 Hz. "
    "Please predict the next 16 control actions to execute the following task: close the drawer.",
    "franka_panda_joint": "The robot is Franka Panda (absolute joint) with single arm. "
    "The control frequency is 15 Hz. "
    "Please predict the next 16 control actions to execute the following task: close the drawer.",
    "mobile_aloha_eef": "The robot is Mobile ALOHA (delta end-effector) with dual arms, "
    "and mobile base. The control frequency is 50 Hz. "
    "Please predict the next 16 control actions to execute the following task: close the drawer.",
    "agibot_a2d_joint_hand": "The robot is AgiBot A2-D (dexterous hands) with dual arms, waist, "
    "and mobile base. The control frequency is 30 Hz. "
    "Please predict the next 16 control actions to execute the following task: close the drawer.",
    "galaxea_r1_joint": "The robot is Galaxea R1 with dual arms, waist, and mobile base. "
    "The control frequency is 15 Hz. "
    "Please predict the next 16 control actions to execute the following task: close the drawer.",
    "human_hands": "The robot is Real Human with dual arms. The control frequency is 30 Hz. "
    "Please predict the next 16 control actions to execute the following task: close the drawer.",
    "vln_agent": "The robot is VLN agent with mobile base. The control frequency is 2 Hz. "
    "Each waypoint is (dx, dy, dtheta), the relative displacement and heading change in the ground "
    "plane. Please predict the next 8 waypoints to execute the following task: close the drawer.",
}

ROBOT = """
robot_tag: Test Robot
dual_arm: false
waist: false
mobile_base: false
control_hz: 10
horizon: 16
channels:
  - {name: x, unit: m, kind: delta_position, low: -1, high: 1}
  - {names: [roll, pitch, yaw], unit: rad, kind: rotation_euler, low: -0.3, high: 0.3}
"""


def write(folder: Path, text: str = ROBOT) -> str:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def action_type(embodiment: Embodiment) -> str:
    """As Table 2 words it."""
    return " + ".join(dict.fromkeys(PARTS[channel.kind] for channel in embodiment.channels))


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_file_loads_and_fits_the_action_tensor(name: str) -> None:
    embodiment = load_embodiment(name)
    assert embodiment.name == name
    assert embodiment.cameras
    assert set(embodiment.cameras) <= set(VIEWS)
    assert len(embodiment.channels) <= MAX_CHANNELS
    assert embodiment.horizon <= HORIZON
    assert Embodiment.from_dict(json.loads(json.dumps(embodiment.to_dict()))) == embodiment


@pytest.mark.parametrize(("robot", "arms", "action", "name", "channels"), TABLE_2)
def test_every_row_of_table_2(robot: str, arms: str, action: str, name: str, channels: int) -> None:
    embodiment = load_embodiment(name)
    assert embodiment.robot_tag.partition(" (")[0] == robot
    assert embodiment.dual_arm == (arms == "dual")
    assert action_type(embodiment) == action
    assert len(embodiment.channels) == channels


def test_nothing_ships_that_is_not_accounted_for() -> None:
    others = {"vln_agent", "driving_car", "tabletop_arm", "tabletop_arm_turned", "counting"}
    others |= {"metaworld_sawyer", "metaworld_sawyer_40hz", "metaworld_sawyer_20hz"}
    others |= {"fourier_gr1_joint_hand", "aloha_agilex_joint", "calvin_panda", "maniskill_panda"}
    assert {name for *_, name, _ in TABLE_2} | others == set(NAMES)


@pytest.mark.parametrize("name", [name for *_, name, _ in TABLE_2])
def test_arms_have_the_same_channels_and_waists_move(name: str) -> None:
    embodiment = load_embodiment(name)
    names = [channel.name for channel in embodiment.channels]
    sides = [
        [(c.name.removeprefix(side), c.kind, c.low, c.high) for c in embodiment.channels
         if c.name.startswith(side)]
        for side in ("left_", "right_")
    ]  # fmt: skip
    assert sides[0] == sides[1]
    assert bool(sides[0]) == embodiment.dual_arm
    assert any(part.startswith(("waist", "torso")) for part in names) == embodiment.waist


def test_human_hands_are_in_the_papers_order() -> None:
    channels = load_embodiment("human_hands").channels
    hand = ["delta_position"] * 3 + ["rotation_axis_angle"] * 3 + ["eigengrasp"] * 10
    assert [channel.kind for channel in channels] == hand * 2
    assert all(channel.name.startswith("left") for channel in channels[:16])


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_prompts(name: str) -> None:
    embodiment = load_embodiment(name)
    assert prompt(embodiment, "close the drawer.", embodiment.horizon) == GOLDEN[name]


def test_no_two_embodiments_have_the_same_prompt() -> None:
    prompts = {prompt(load_embodiment(name), "go", HORIZON) for name in NAMES}
    assert len(prompts) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_codec_round_trips_every_embodiment(name: str) -> None:
    embodiment = load_embodiment(name)
    random = np.random.default_rng(7)
    c, steps = len(embodiment.channels), embodiment.horizon
    bounds = np.array([(channel.low, channel.high) for channel in embodiment.channels])
    inner = np.sort(random.uniform(bounds[:, :1], bounds[:, 1:], size=(c, 2)), axis=1)
    stats = ActionStats(inner[:, 0].astype(np.float32), inner[:, 1].astype(np.float32))
    codec = ActionCodec(stats, steps, MAX_CHANNELS, HORIZON)
    actions = random.uniform(stats.low, stats.high, size=(4, steps, c)).astype(np.float32)
    encoded, mask = codec.encode(actions)
    error = np.abs(codec.decode(encoded) - actions)
    assert (error <= 1e-6 * np.maximum(np.abs(bounds).max(axis=1), 1.0)).all()
    assert mask.sum() == 4 * steps * c
    assert mask[:, :steps, :c].all()
    assert encoded.abs().max() <= 1.0
    assert not encoded[~mask].any()


def test_a_file_may_list_channels_one_by_one_or_several_on_a_line(tmp_path: Path) -> None:
    short = load_embodiment(write(tmp_path))
    line = "{{name: {}, unit: rad, kind: rotation_euler, low: -0.3, high: 0.3}}"
    lines = "".join(f"  - {line.format(name)}\n" for name in ("roll", "pitch", "yaw"))
    long = load_embodiment(write(tmp_path, ROBOT[: ROBOT.index("  - {names")] + lines))
    assert short == long
    assert short.channels[0] == Channel("x", "m", "delta_position", -1.0, 1.0)
    assert isinstance(short.channels[0].low, float)
    assert isinstance(short.control_hz, float)
    assert (short.name, short.cameras) == ("mine", ())


def test_adding_a_file_adds_a_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(configs_folder() / "embodiments", tmp_path / "embodiments")
    write(tmp_path / "embodiments")
    monkeypatch.setattr(embodiments, "configs_folder", lambda: tmp_path)
    assert set(embodiment_names()) == {*NAMES, "mine"}
    assert load_embodiment("mine").robot_tag == "Test Robot"


def test_unknown_names_and_missing_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown embodiment.*Did you mean widowx_eef\?"):
        load_embodiment("widowx")
    with pytest.raises(ConfigError, match=r"none\.yaml: no such embodiment file"):
        load_embodiment(str(tmp_path / "none.yaml"))


MISTAKES = [
    ("robot_tag: Test Robot", "robot_tag: ' '", "robot_tag = ' ': is empty. Name the robot"),
    ("robot_tag: Test Robot", "robot_tag: 7", "robot_tag = 7: must be text. Quote it"),
    ("dual_arm: false", "dual_arm: 0", "dual_arm = 0: must be `true` or `false`. Write it without"),
    ("waist: false", "waist: 'no'", "waist = 'no': must be `true` or `false`"),
    ("control_hz: 10", "control_hz: 0", "control_hz = 0: must be above zero. Give the control"),
    ("control_hz: 10", "control_hz: -5.0", "control_hz = -5.0: must be above zero"),
    ("control_hz: 10", "control_hz: fast", "control_hz = 'fast': must be a finite number"),
    ("control_hz: 10", "control_hz: .inf", "control_hz = inf: must be a finite number"),
    ("control_hz: 10\n", "", "control_hz: is missing. Add `control_hz: ...`; it takes a finite"),
    ("horizon: 16", "horizon: 0", "horizon = 0: must be at least 1. Give the control steps"),
    ("horizon: 16", "horizon: 8.5", "horizon = 8.5: must be a whole number"),
    ("horizon: 16", "horizont: 16", "horizont = 16: no such field; allowed: robot_tag, "),
    ("horizon: 16", "horizont: 16", "Did you mean horizon?"),
    ("horizon: 16", "horizon: 16\nname: x", "name = 'x': no such field"),
    ("horizon: 16", "horizon: 16\ncameras: [ego, wrist]", "cameras[1] = 'wrist': no such camera; "),
    ("horizon: 16", "horizon: 16\ncameras: [wrist]", "allowed: ego, cam_left_wrist, cam_right_w"),
    ("horizon: 16", "horizon: 16\ncameras: [ego, ego]", "cameras[1] = 'ego': is named twice"),
    ("horizon: 16", "horizon: 16\ncameras: ego", "cameras = 'ego': must be a list. Write [A, B]"),
    ("kind: rotation_euler", "kind: rotation_eulr", "channels[1].kind = 'rotation_eulr': no such"),
    ("kind: rotation_euler", "kind: rotation_eulr", "Did you mean rotation_euler?"),
    ("kind: rotation_euler", "kind: speed", f"allowed: {', '.join(CHANNEL_KINDS)}. Choose one"),
    ("low: -1", "low: 1", "channels[0].low = 1: must be below high = 1. Give the least"),
    ("low: -1", "low: much", "channels[0].low = 'much': must be a finite number"),
    ("low: -1, ", "", "channels[0].low: is missing"),
    ("unit: m,", "unit: 1,", "channels[0].unit = 1: must be text. Quote it"),
    ("unit: m,", "units: m,", "channels[0].units = 'm': no such field"),
    ("{name: x,", "{", "needs either `name` or `names`. Give `name` for one channel"),
    ("{name: x,", "{name: x, names: [x],", "needs either `name` or `names`"),
    ("{name: x,", "{names: [],", "channels[0].names = []: must be text that is not empty"),
    ("{name: x,", "{name: '',", "channels[0].name = '': must be text that is not empty"),
    ("{name: x,", "{name: yaw,", "channels = 'yaw': two channels have this name. Rename one."),
    ("[roll, pitch, yaw]", "[roll, roll, yaw]", "channels = 'roll': two channels have this name"),
    ("[roll, pitch, yaw]", "[roll, yaw]", "2 channels of kind rotation_euler in a row, which come"),
    ("kind: rotation_euler", "kind: rotation_quaternion", "['roll', 'pitch', 'yaw']: 3 channels of "
     "kind rotation_quaternion in a row, which come in groups of 4. Complete the group"),
    ("kind: delta_position", "kind: waypoint", "waypoint channels stand beside kinds rotation_eul"),
    ("channels:\n", "channels:\n  - wheel\n", "channels[0] = 'wheel': must be a mapping. Write {"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_a_wrong_file_says_what_is_wrong(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    assert right in ROBOT
    file = write(tmp_path, ROBOT.replace(right, wrong))
    with pytest.raises(ConfigError) as caught:
        load_embodiment(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


def test_channels_are_between_1_and_64(tmp_path: Path) -> None:
    values = yaml.safe_load(ROBOT)
    values["channels"] = []
    with pytest.raises(ConfigError, match=r"channels = \[\]: names no channel. Add a"):
        load_embodiment(write(tmp_path, yaml.safe_dump(values)))
    names = [f"joint_{i}" for i in range(65)]
    entry = {"names": names, "unit": "rad", "kind": "absolute_joint", "low": -1, "high": 1}
    values["channels"] = [entry]
    with pytest.raises(ConfigError, match="channels = 65 of them: an action has at most 64"):
        load_embodiment(write(tmp_path, yaml.safe_dump(values)))
    values["channels"] = [{**entry, "names": names[:64]}]
    assert len(load_embodiment(write(tmp_path, yaml.safe_dump(values))).channels) == 64


def test_a_navigation_agent_has_no_arms(tmp_path: Path) -> None:
    text = (configs_folder() / "embodiments" / "vln_agent.yaml").read_text(encoding="utf-8")
    for key in ("dual_arm", "waist"):
        with pytest.raises(ConfigError, match=f"{key} = True: has no effect where all channels"):
            load_embodiment(write(tmp_path, text.replace(f"{key}: false", f"{key}: true")))


def test_a_file_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: not readable as YAML"):
        load_embodiment(write(tmp_path, "robot_tag: [\n"))
    with pytest.raises(ConfigError, match=r"mine\.yaml: holds a list"):
        load_embodiment(write(tmp_path, "- robot_tag\n"))


def test_a_channel_of_unknown_kind_does_not_exist() -> None:
    with pytest.raises(ValueError, match="kind 'speed' is unknown; allowed: delta_position"):
        Channel("x", "m/s", "speed", 0.0, 1.0)


@pytest.mark.parametrize("name", ["counting", "tabletop"])
def test_suites_simulate_the_robot_that_they_name(name: str) -> None:
    suite = make_suite(name, 1)
    spec = suite.spec
    suite.close()
    embodiment = load_embodiment(spec.embodiment)
    assert embodiment.cameras == tuple(camera.name for camera in spec.cameras)
    Contract(spec.cameras, embodiment.horizon, embodiment).check(spec)


def test_a_robot_of_ones_own_fits_the_environment_that_names_its_file(tmp_path: Path) -> None:
    file = write(tmp_path)
    embodiment = load_embodiment(file)
    cameras = (CameraSpec("ego", 32, 32),)
    spec = EnvSpec("gym:any", ("any",), cameras, embodiment.channels, file, 10.0, 9, 1)
    contract = Contract(cameras, embodiment.horizon, embodiment)
    contract.check(spec)
    with pytest.raises(CheckpointError, match="embodiment"):
        tabletop_contract().check(spec)


def test_checkpoints_older_than_cameras_load_and_fit() -> None:
    file = ROOT / "vlarl" / "checkpoints" / "tabletop-sft" / "contract.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    assert "cameras" not in values["embodiment"]
    contract = Contract.from_dict(values)
    assert contract.embodiment.cameras == ()
    suite = make_suite("tabletop", 1)
    contract.check(suite.spec)
    suite.close()
    assert prompt(contract.embodiment, "go", 8) == prompt(load_embodiment("tabletop_arm"), "go", 8)


def test_an_embodiment_file_older_than_cameras_loads(tmp_path: Path) -> None:
    text = (configs_folder() / "embodiments" / "tabletop_arm.yaml").read_text(encoding="utf-8")
    older = load_embodiment(write(tmp_path, text.replace("cameras: [ego, cam_right_wrist]\n", "")))
    assert older.cameras == ()
    assert older.channels == load_embodiment("tabletop_arm").channels
