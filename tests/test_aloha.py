"""The single-platform track of SFT: sets as the public ALOHA ones are, through the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from actors import cli
from vlarl.config.load import load_config
from vlarl.config.paths import configs_folder
from vlarl.data.episode import Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.types import CameraSpec

CONFIG = "configs/sft/aloha_debug.yaml"
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
LEFT_FIRST = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS)
MOBILE = ("cam_high", "cam_left_wrist", "cam_right_wrist")
STATIC = ("cam_high", "cam_left_wrist", "cam_low", "cam_right_wrist")
SHADES = {name: 40 * number + 40 for number, name in enumerate((*STATIC, "top"))}


def sines(length: int, seed: int) -> np.ndarray:
    time = np.arange(length)[:, None] / 50
    action = 0.4 * np.sin(3 * time + np.arange(14) + seed)
    action[:, [6, 13]] = np.abs(action[:, [6, 13]])
    return action.astype(np.float32)


def write_aloha(
    folder: Path,
    cameras: Sequence[str] = MOBILE,
    names: Sequence[str] = LEFT_FIRST,
    fps: float = 50.0,
    lengths: Sequence[int] = (40, 30),
    video: str = "",
) -> Path:
    """As LeRobot's public sets: names below `motors`; efforts and an end mark beside actions."""
    seen = [CameraSpec(name, 32, 32) for name in cameras]
    settings: dict[str, Any] = {"state_names": names, "video": video}
    with LeRobotWriter(folder, fps, seen, names, 14, "aloha", **settings) as writer:
        for seed, length in enumerate(lengths):
            images = {
                name: np.broadcast_to(
                    np.linspace(SHADES[name], SHADES[name] + 19, 32)[:, None], (length, 32, 32, 3)
                ).astype(np.uint8)
                for name in cameras
            }
            action = sines(length, seed)
            writer.add(Episode(images, action - np.float32(0.01), action, "open the drawer"))
    info = json.loads((folder / "meta/info.json").read_text())
    for key in ("action", "observation.state"):
        info["features"][key]["names"] = {"motors": list(names)}
    info["features"]["observation.effort"] = info["features"]["observation.state"]
    info["features"]["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    (folder / "meta/info.json").write_text(json.dumps(info))
    for file in (folder / "data").glob("*/*.parquet"):
        table = pq.read_table(file)
        table = table.append_column("observation.effort", table["observation.state"])
        table = table.append_column("next.done", pa.array([False] * len(table)))
        pq.write_table(table, file)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_aloha(tmp_path_factory.mktemp("aloha") / "mobile")


@pytest.fixture(scope="module")
def other_robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that drives the tabletop arm by two cameras."""
    torch.manual_seed(0)
    contract = tabletop_contract(image_size=32)
    folder = tmp_path_factory.mktemp("checkpoint") / "arm"
    model = build("tiny", contract, channel_bounds_codec(contract))
    with torch.no_grad():
        # A new expert passes no gradient on: its last layers are zero.
        for parameter in model.expert.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def words_of(output: Path, data: Path, *more: str, name: str = "run") -> list[str]:
    return [
        "sft",
        CONFIG,
        f"output={output}",
        f"name={name}",
        f"supervised.data.path={data}",
        *more,
    ]


def train(capsys: pytest.CaptureFixture[str], *words: Any, name: str = "run") -> QwenVLA:
    """Two steps, and the checkpoint that they leave."""
    code = cli.run([*words_of(*words, name=name), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result = json.loads(captured.out)
    assert result["steps"] == 2
    assert result["skipped_episodes"] == 0
    assert result["action_loss"] > 0
    return QwenVLA.from_pretrained(result["checkpoint"])


def refused(capsys: pytest.CaptureFixture[str], output: Path, *words: Any) -> str:
    """The message of a run that never begins."""
    code = cli.run(words_of(output, *words))
    message = capsys.readouterr().err
    assert code == 2, message
    assert not list(output.iterdir())
    return message


@pytest.mark.parametrize("video", ["", "h264"])
def test_a_set_like_the_public_ones_has_no_defect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], video: str
) -> None:
    folder = write_aloha(tmp_path / "data", STATIC, video=video)
    assert cli.run(["data", "validate", str(folder)]) == 0
    assert "no defects" in capsys.readouterr().out


def test_from_a_checkpoint_of_another_robot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path, other_robot: Path
) -> None:
    model = train(capsys, tmp_path, data, f"model.init.weights={other_robot}")
    contract = model.contract
    assert contract.embodiment.name == "mobile_aloha_joint"
    assert [camera.name for camera in contract.cameras] == [
        "ego", "cam_left_wrist", "cam_right_wrist",
    ]  # fmt: skip
    assert (contract.horizon, contract.embodiment.control_hz) == (16, 50.0)
    actions = LeRobotReader(data).actions()
    expected = np.quantile(actions.astype(np.float64), [0.01, 0.99], axis=0)
    np.testing.assert_allclose([model.codec.stats.low, model.codec.stats.high], expected, rtol=1e-6)
    before = QwenVLA.from_pretrained(other_robot).state_dict()
    after = model.state_dict()
    for part in ("backbone", "expert"):
        names = [name for name in after if name.startswith(f"{part}.")]
        assert names
        gap = max(float((after[name] - before[name]).abs().max()) for name in names)
        # Two steps of at most 1e-3: the same weights, a little further.
        assert 0 < gap < 5e-3, part


def test_from_scratch(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    model = train(capsys, tmp_path, data, "model.init.weights=")
    assert len(model.contract.embodiment.channels) == 14


def test_a_camera_more_is_not_read_and_streaming_reads_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_aloha(tmp_path / "data", STATIC)
    chosen = load_config(CONFIG).supervised.data.cameras
    reader = LeRobotReader(folder, chosen=chosen)
    assert reader.decoded_bytes == 70 * 3 * 3 * 32 * 32
    for ours, images in reader.images(1, [3, 7]).items():
        assert images.shape == (2, 32, 32, 3)
        assert SHADES[chosen[ours]] <= images.min() <= images.max() < SHADES[chosen[ours]] + 20
    models = [
        train(capsys, tmp_path, folder, "model.init.weights=", memory, name=name)
        for name, memory in (
            ("whole", "supervised.data.memory_gigabytes=8"),
            ("streamed", "supervised.data.memory_gigabytes=1e-5"),
        )
    ]
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_simulated_set_has_one_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_aloha(tmp_path / "data", ["top"])
    output = tmp_path / "runs"
    output.mkdir()
    message = refused(capsys, output, folder, "model.init.weights=")
    assert "has no camera 'cam_high', which `cameras` says is ego; it has: top" in message
    cameras = "supervised.data.cameras={ego: top}"
    model = train(capsys, output, folder, "model.init.weights=", cameras)
    assert [camera.name for camera in model.contract.cameras] == ["ego"]


def test_a_source_of_a_mixture_says_which_camera_is_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    """Without it, a model would learn from the wrist cameras alone."""
    file = tmp_path / "mixture.yaml"
    settings = yaml.safe_load((configs_folder() / "sft/aloha_debug.yaml").read_text())
    given = settings["supervised"]["data"]
    source = {"path": str(data), "embodiment": given["embodiment"]}
    settings["supervised"]["data"] = {"mixture": {"aloha": source}}
    settings["model"] = {}
    words = ["sft", str(file), f"output={tmp_path / 'runs'}", "name=run", "--json"]
    file.write_text(yaml.safe_dump(settings))
    assert cli.run(words) == 2
    assert "`cameras` of a mixture's source" in capsys.readouterr().err
    file.write_text(yaml.safe_dump(settings))
    more = [f"supervised.data.mixture.aloha.cameras={json.dumps(given['cameras'])}"]
    assert cli.run([*words, *more]) == 0
    result = json.loads(capsys.readouterr().out)
    contract = QwenVLA.from_pretrained(result["checkpoint"]).contract
    assert [camera.name for camera in contract.cameras] == list(given["cameras"])


RIGHT_FIRST = (*LEFT_FIRST[7:], *LEFT_FIRST[:7])


@pytest.mark.parametrize(
    ("made", "more", "message"),
    [
        ({"names": RIGHT_FIRST}, [], "actions: right_waist, "),
        ({"fps": 30.0}, [], "fps: 30; mobile_aloha_joint has 50. Name the dataset's robot: super"),
        ({}, ["supervised.data.embodiment="], "Name the dataset's robot: supervised.data.embodi"),
        ({}, ["supervised.data.cameras={}"], "supervised.data.cameras={ego: NAME_IN_THE_DATASET}"),
        ({}, ["supervised.data.embodiment=mobile_aloha_eef"], "actions: left_waist, "),
        (
            {"lengths": (40, 15)},
            [],
            "episode 1 has 15 frames, and 1 of 2 episodes less than the 16",
        ),
        ({}, ["model.checkpoint=ARM"], "model.init.weights=CHECKPOINT instead of model.checkpoint"),
    ],
)
def test_what_does_not_fit_says_which_setting_maps_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    other_robot: Path,
    made: dict[str, Any],
    more: list[str],
    message: str,
) -> None:
    folder = write_aloha(tmp_path / "data", **made)
    output = tmp_path / "runs"
    output.mkdir()
    more = [word.replace("ARM", str(other_robot)) for word in ("model.init.weights=", *more)]
    assert message in refused(capsys, output, folder, *more)


def test_another_order_of_the_arms_is_a_robot_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the refusal says."""
    values = yaml.safe_load((configs_folder() / "embodiments/mobile_aloha_joint.yaml").read_text())
    values["channels"] = [*values["channels"][7:], *values["channels"][:7]]
    (tmp_path / "my_aloha.yaml").write_text(yaml.safe_dump(values))
    folder = write_aloha(tmp_path / "data", names=RIGHT_FIRST)
    robot = f"supervised.data.embodiment={tmp_path / 'my_aloha.yaml'}"
    model = train(capsys, tmp_path, folder, "model.init.weights=", robot)
    assert model.contract.embodiment.channels[0].name == "right_waist"


def test_the_real_config_is_the_debug_one_at_length() -> None:
    real, debug = (load_config(f"configs/sft/{name}.yaml") for name in ("aloha", "aloha_debug"))
    assert real.supervised.data == debug.supervised.data
    assert real.model == debug.model
    rates = real.supervised.optimizer.learning_rates
    assert rates.keys() == {"vision", "language", "expert"}
    assert rates["vision"] == rates["language"] < rates["expert"]
    assert real.supervised.optimizer.final_fraction < 1
