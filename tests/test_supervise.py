"""The supervised stage as a whole, on its shipped debug config."""

import json
from pathlib import Path

import pytest
import torch

from actors.supervise import supervise
from vlarl.config.load import load_config
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError
from vlarl.model.qwen_vla import QwenVLA

CONFIG = Path(__file__).parents[1] / "configs/sft/debug.yaml"


def train(output: Path, *overrides: str) -> dict:
    return supervise(load_config(CONFIG, [f"output={output}", *overrides]))


def test_stopped_and_resumed_run_ends_where_a_whole_one_does(tmp_path):
    whole = train(tmp_path, "name=whole")
    dataset = f"supervised.data.path={tmp_path / 'whole/demonstrations'}"
    common = ("name=parts", "resume=auto", dataset, "supervised.collect.episodes=400")
    first = train(tmp_path, *common)
    assert first["steps"] == whole["steps"] == 4
    run = tmp_path / "parts"
    for leftover in ("checkpoints/step_4", "checkpoints/last"):
        path = run / leftover
        path.unlink() if path.is_symlink() else path.rename(tmp_path / "moved")
    again = train(tmp_path, *common)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert again["action_loss"] == whole["action_loss"]
    one, other = (QwenVLA.from_pretrained(r["checkpoint"]).state_dict() for r in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    low = QwenVLA.from_pretrained(whole["checkpoint"]).codec.stats.low
    actions = LeRobotReader(tmp_path / "whole/demonstrations").actions()
    assert (low <= actions.max(0)).all()
    assert (low >= actions.min(0)).all()


def test_dataset_of_another_image_size_is_refused(tmp_path):
    train(tmp_path, "name=small")
    dataset = f"supervised.data.path={tmp_path / 'small/demonstrations'}"
    with pytest.raises(UserError, match="cameras"):
        train(tmp_path, "name=big", dataset, "env.image_size=64", "supervised.collect.episodes=400")
