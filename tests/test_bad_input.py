"""Bad input at the doors where a user comes in: refused, by name, with what would be right."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from actors import cli
from actors.run_model import load_model
from actors.supervise import supervise
from vlarl.action_range import FAR, NOTABLE, check_recorded, refuse_far
from vlarl.codec import ActionCodec, ActionStats
from vlarl.config.embodiments import load_embodiment
from vlarl.config.load import load_config
from vlarl.config.paths import configs_folder
from vlarl.config.schema import SamplingConfig
from vlarl.data.episode import Episode
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.errors import CheckpointError, ConfigError, UserError
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.observations import Observations
from vlarl.policy import Policy
from vlarl.prompt import prompt
from vlarl.types import Channel, EnvSpec

SIZE = 32
CAMERAS = ("ego", "cam_right_wrist")
GO = "put the spoon on the towel"
HERE = ("env.mode=inprocess", "env.servers=1", "env.envs_per_server=2")


@pytest.fixture(scope="module")
def model() -> QwenVLA:
    torch.manual_seed(0)
    contract = tabletop_contract(image_size=SIZE)
    return build("tiny", contract, channel_bounds_codec(contract))


def images(n: int = 1, size: int = SIZE, dtype: type = np.uint8) -> dict[str, Any]:
    return {name: np.zeros((n, size, size, 3), dtype) for name in CAMERAS}


def acting(model: QwenVLA, pictures: dict[str, Any], sentences: Sequence[Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    seen = Observations(pictures, sentences)
    Policy(model, SamplingConfig()).act(seen, generator, explore=False)


def test_good_input_is_acted_on(model: QwenVLA) -> None:
    acting(model, images(2), [GO, GO])


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (images(size=64), r"camera 'ego': expected uint8 \(1, 32, 32, 3\), got uint8 \(1, 64, 64"),
        (images(n=2), r"expected uint8 \(1, 32, 32, 3\), got uint8 \(2, 32, 32, 3\)"),
        (images(dtype=np.float32), r"camera 'ego': expected uint8 .* got float32"),
        ({"ego": images()["ego"]}, r"no image of camera 'cam_right_wrist'; given: \['ego'\]"),
        ({}, r"no image of camera 'ego'; given: \[\]"),
        ({**images(), "ego": images()["ego"][0]}, r"camera 'ego': .* got uint8 \(32, 32, 3\)"),
        ({**images(), "ego": images()["ego"].tolist()}, "'ego': expected a numpy array, got list"),
        (
            {**images(), "ego": torch.zeros(1, 32, 32, 3, dtype=torch.uint8)},
            "'ego': expected a numpy array, got Tensor",
        ),
    ],
)
def test_images_that_are_not_what_the_checkpoint_sees(
    model: QwenVLA, pictures: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        acting(model, pictures, [GO])


@pytest.mark.parametrize(
    ("sentences", "words"),
    [
        ([""], "the instruction is empty: say what the robot should do"),
        ([" . "], "the instruction is empty"),
        ([None], "the instruction is None, not text"),
        (GO, "instructions = 'put the spoon on the towel': must be a sequence of sentences"),
        ([], "no observations"),
        (
            ["go " * 99],
            r"tokens exceed the contract's prompt_tokens = \d+; shorten the text by \d+",
        ),
        (["stop <|im_end|> now"], r"contains the control token '<\|im_end\|>'"),
    ],
)
def test_instructions_that_cannot_be_followed(
    model: QwenVLA, sentences: Sequence[Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        acting(model, images(), sentences)


CHANNELS = (
    Channel("x", "m", "delta_position", -0.05, 0.05),
    Channel("turn", "rad", "delta_rotation", -0.25, 0.25),
    Channel("gripper", "1", "gripper", 0.0, 1.0),
)


def test_actions_beyond_the_percentiles_are_clipped_and_far_outside_the_bounds_refused() -> None:
    stats = ActionStats(np.float32([-0.01, -0.1, 0.0]), np.float32([0.01, 0.1, 1.0]))
    codec = ActionCodec(stats, 2, 8, 4, CHANNELS)
    rare = np.array([[[0.05, -0.25, 1.0], [0.06, 0.3, -1.0]]])
    clean, _ = codec.encode(rare)
    assert clean[0, :2, :3].tolist() == [[1, -1, 1], [1, 1, -1]]
    for channel, value in ((0, 50.0), (1, -14.0), (2, 2.01)):
        wrong = rare.copy()
        wrong[0, 1, channel] = value
        words = rf"action \[0, 1\]: action channel '{CHANNELS[channel].name}' is {value:g}, far"
        with pytest.raises(ValueError, match=words):
            codec.encode(wrong)


def test_far_outside_is_more_than_the_bounds_width_beyond_them() -> None:
    edge = CHANNELS[1].high + FAR * (CHANNELS[1].high - CHANNELS[1].low)
    assert edge == pytest.approx(0.75)
    refuse_far(np.array([0.0, edge, 0.0]), CHANNELS)
    with pytest.raises(
        ValueError, match=r"'turn' is 0\.76, far outside its bounds -0\.25 to 0\.25"
    ):
        refuse_far(np.array([0.0, 0.76, 0.0]), CHANNELS)
    free = (Channel("speed", "m/s", "delta_position", -np.inf, np.inf),)
    refuse_far(np.array([1e9]), free)


def test_recorded_actions_are_found_by_episode_and_frame() -> None:
    actions, lengths = np.zeros((200, 3)), (50, 60, 90)
    assert check_recorded(actions, lengths, CHANNELS) == []
    actions[109, 1] = 14.0
    with pytest.raises(ValueError, match="episode 1, frame 59: action channel 'turn' is 14, far"):
        check_recorded(actions, lengths, CHANNELS)
    actions[110, 1] = np.nan
    with pytest.raises(ValueError, match="episode 2, frame 0: action channel 'turn' is nan"):
        check_recorded(actions, lengths, CHANNELS)
    actions[109:111, 1] = 0.3
    assert check_recorded(actions, lengths, CHANNELS) == []
    assert NOTABLE == 0.01
    actions[60:80, 2] = -1.0
    (sentence,) = check_recorded(actions, lengths, CHANNELS)
    assert sentence.startswith("10.0% of the actions of channel 'gripper' are outside its bounds")
    assert "the first (-1) in episode 1, frame 10" in sentence


def recorded(folder: Path, action: np.ndarray, instruction: str = GO) -> Path:
    """A dataset of two episodes for the tabletop arm; `action` is the second one's."""
    contract = tabletop_contract(image_size=SIZE)
    names = [channel.name for channel in contract.embodiment.channels]
    arguments = (folder, contract.embodiment.control_hz, contract.cameras, names, 1, "arm")
    with LeRobotWriter(*arguments) as writer:
        for actions, sentence in ((np.zeros_like(action), GO), (action, instruction)):
            state = np.zeros((len(action), 1), np.float32)
            writer.add(Episode(images(len(action)), state, actions, sentence))
    return folder


def train(data: Path, *more: str) -> dict[str, Any]:
    """One step on it."""
    overrides = [
        "stage=sft",
        f"output={data.parent}",
        "name=run",
        "env.image_size=32",
        f"supervised.data.path={data}",
        "supervised.steps=1",
        "supervised.batch_size=2",
        "supervised.optimizer.learning_rates={expert: 1e-3}",
        "supervised.optimizer.warmup_steps=0",
        *more,
    ]
    return supervise(load_config(None, overrides))


def test_a_dataset_in_other_units_is_refused_before_training(tmp_path: Path) -> None:
    action = np.zeros((9, 5), np.float32)
    action[4, 0] = 500.0
    with pytest.raises(UserError, match=r"bad: episode 1, frame 4: action channel '\w+' is 500, "):
        train(recorded(tmp_path / "bad", action))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("instruction", "words", "given"),
    [("", "empty", False), ("", "empty", True), ("go " * 99, "shorten", True)],
)
def test_a_dataset_with_an_impossible_instruction_is_refused_before_training(
    tmp_path: Path, model: QwenVLA, instruction: str, words: str, given: bool
) -> None:
    data = recorded(tmp_path / "bad", np.zeros((9, 5), np.float32), instruction)
    model.save_pretrained(tmp_path / "checkpoint")
    start = [f"model.checkpoint={tmp_path / 'checkpoint'}"] if given else []
    with pytest.raises(UserError, match=rf"bad: episode 1: .*{words}"):
        train(data, *start)
    assert not (tmp_path / "run").exists()


def test_a_dataset_somewhat_beyond_the_bounds_is_trained_on_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    action = np.zeros((9, 5), np.float32)
    action[:, 1] = tabletop_contract().embodiment.channels[1].high + 0.01
    with caplog.at_level(logging.WARNING):
        assert train(recorded(tmp_path / "odd", action))["steps"] == 1
    assert "50.0% of the actions of channel" in caplog.text
    assert "in episode 1, frame 0" in caplog.text


def other_robot(folder: Path, **changes: Any) -> Path:
    """The tabletop arm's file under another name, with changes."""
    values = yaml.safe_load((configs_folder() / "embodiments/tabletop_arm.yaml").read_text())
    file = folder / "my_arm.yaml"
    file.write_text(yaml.safe_dump({**values, "robot_tag": "My 6-joint Arm", **changes}))
    return file


def spec_of(reference: str, **changes: Any) -> EnvSpec:
    contract = QwenVLA.from_pretrained("tabletop-sft").contract
    robot = contract.embodiment
    spec = EnvSpec(
        "mine", (GO,), contract.cameras, robot.channels, reference, robot.control_hz, 9, 1
    )
    return replace(spec, **changes)


def test_a_robot_the_checkpoint_never_saw_is_named_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(None, ["stage=eval", "model.checkpoint=tabletop-sft"])
    same = load_model(config, spec_of("tabletop_arm"))
    assert not caplog.records
    file = other_robot(tmp_path)
    changed = load_model(config, spec_of(str(file)))
    for words in ("never saw the robot my_arm", "My 6-joint Arm", "Success may be low"):
        assert words in caplog.text
    changed.contract.check(spec_of(str(file)))
    assert changed.contract.embodiment == load_embodiment(str(file))
    assert changed.codec.stats.to_dict() == same.codec.stats.to_dict()
    ours, theirs = same.state_dict(), changed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    size = same.contract.cameras[0].height
    seen = Observations(images(size=size), [GO])
    ids = changed.processor(seen)["input_ids"][0].tolist()
    words = changed.processor.tokenizer.decode(ids)
    assert prompt(changed.contract.embodiment, GO, changed.contract.horizon) in words
    acting(changed, images(size=size), [GO])


def test_a_longer_name_of_a_robot_has_room(tmp_path: Path) -> None:
    config = load_config(None, ["stage=eval", "model.checkpoint=tabletop-sft"])
    before = load_model(config, spec_of("tabletop_arm"))
    file = other_robot(tmp_path, robot_tag="Manipulator of the Laboratory at the End of the Street")
    changed = load_model(config, spec_of(str(file)))
    assert changed.contract.prompt_tokens > before.contract.prompt_tokens
    longest = "put the green block on the yellow block"
    before.processor.check_instruction(longest)
    changed.processor.check_instruction(longest)


def test_a_robot_with_other_channels_stays_an_error(tmp_path: Path) -> None:
    config = load_config(None, ["stage=eval", "model.checkpoint=tabletop-sft"])
    channels = load_embodiment("tabletop_arm").channels
    renamed = (replace(channels[0], name="knee"), *channels[1:])
    entries = [vars(channel) for channel in renamed]
    spec = spec_of(str(other_robot(tmp_path, channels=entries)), channels=renamed)
    with pytest.raises(CheckpointError, match=r"action channel 0: .*knee(.|\n)*embodiment"):
        load_model(config, spec).contract.check(spec)


def test_eval_takes_the_robot_by_name_or_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = other_robot(tmp_path)
    few = ("episodes=4", "env.max_steps=4", "sampling.execute_steps=2", *HERE)
    assert cli.run(["eval", "tabletop-sft", f"embodiment={file}", *few, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 4
    assert "The prompt will name My 6-joint Arm" in caplog.text
    assert cli.run(["eval", "tabletop-sft", "embodiment=arx5_eef", *few]) == 2
    assert "embodiment arx5_eef: its 16 action channels" in capsys.readouterr().err
    assert cli.run(["eval", "tabletop-sft", "embodiment=tabletop_rm", *few]) == 2
    error = capsys.readouterr().err
    assert "env.embodiment = 'tabletop_rm'" in error
    assert "Did you mean tabletop_arm?" in error


def test_training_from_demonstrations_takes_no_robot_of_the_environments() -> None:
    with pytest.raises(ConfigError, match=r"env\.embodiment .* no effect with stage=sft"):
        load_config(None, ["stage=sft", "env.embodiment=widowx_eef"])
