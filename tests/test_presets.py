"""Model presets: the paper's parameter counts, and what a file of sizes may say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vlarl.config.embodiments import load_embodiment
from vlarl.config.presets import preset_names
from vlarl.errors import ConfigError
from vlarl.model.parameters import breakdown, count, total
from vlarl.model.presets import (
    build,
    channel_bounds_codec,
    load_preset,
    modules_of,
    new_contract,
    tabletop_contract,
)
from vlarl.model.tokenizer import load_tiny_tokenizer, token_id
from vlarl.observations import Observations
from vlarl.types import CameraSpec

PAPER = """
tokenizer: backbone
backbone: {text_config: {hidden_size: 64}, vision_config: {out_hidden_size: 64}}
expert: {width: 96, blocks: 3, heads: 3, head_dim: 256}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_4b_has_the_papers_parameter_counts() -> None:
    modules = modules_of(load_preset("qwen_vla_4b"))
    assert all(p.is_meta for module in modules for p in module.parameters())
    groups = breakdown(*modules)
    assert sum(groups["backbone"].values()) == 4_539_265_536
    assert groups["expert"] == {
        "blocks (16 x 70,797,824)": 16 * 70_797_824,  # 70.8M each
        "action projections": 4_919_872,  # 4.9M
        "context projection": 3_933_696,  # 3.9M
        "timestep embedding": 2_755_584,  # 2.8M
        "output modulation": 4_721_664,  # 4.7M
    }
    assert sum(groups["expert"].values()) == 1_149_096_000  # 1.15B
    assert groups["value head"] == {"value head": 2561}


@pytest.mark.parametrize(
    ("name", "backbone", "expert"),
    [
        ("qwen_vla_2b", 2_213_241_664, 511_000_000),
        ("qwen_vla_0_8b", 852_985_920, 200_000_000),
    ],
)
def test_smaller_experts_keep_the_papers_proportion(name: str, backbone: int, expert: int) -> None:
    groups = breakdown(*modules_of(load_preset(name)))
    assert sum(groups["backbone"].values()) == backbone
    assert sum(groups["expert"].values()) == pytest.approx(expert, rel=0.02)
    assert sum(groups["expert"].values()) / backbone == pytest.approx(1.149 / 4.539, rel=0.1)


@pytest.mark.parametrize("name", [name for name in preset_names() if name.startswith("tiny")])
def test_counts_are_those_of_the_model_that_is_built(name: str) -> None:
    torch.manual_seed(0)
    contract = tabletop_contract()
    model = build(name, contract, channel_bounds_codec(contract))
    groups = breakdown(*modules_of(load_preset(name)))
    assert breakdown(model.backbone, model.expert, model.value_head) == groups
    assert total(groups) + model.exploration_log_std.numel() == count(model.parameters())


def test_tiny_speaks_of_images_in_its_tokenizers_ids() -> None:
    tokenizer, config = load_tiny_tokenizer(), load_preset("tiny").backbone
    for key in ("image", "video"):
        assert config[f"{key}_token_id"] == token_id(tokenizer, f"<|{key}_pad|>")
    for key in ("vision_start", "vision_end"):
        assert config[f"{key}_token_id"] == token_id(tokenizer, f"<|{key}|>")


def test_a_file_may_change_a_part_of_another(tmp_path: Path) -> None:
    mine = load_preset(write(tmp_path, "base: tiny\nexpert: {blocks: 5}\n"))
    tiny = load_preset("tiny")
    assert mine.expert == {**tiny.expert, "blocks": 5}
    assert mine.backbone == tiny.backbone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PAPER.replace("hidden_size: 64}, v", "hiden_size: 64}, v"), "Did you mean hidden_size"),
        (PAPER.replace("width", "widht"), "Did you mean width"),
        (PAPER.replace("head_dim: 256", "horizon: 8"), "unknown key 'horizon'"),
        (PAPER.replace(", head_dim: 256", ""), "head_dim"),
        (PAPER.replace("tokenizer: backbone\n", ""), "tokenizer is missing"),
        (PAPER.replace("tokenizer: backbone", "tokenizer: gpt"), "allowed: tiny, backbone"),
        (PAPER + "experts: {}\n", "Did you mean expert"),
        (PAPER.replace("heads: 3", "heads: 3, pooled: true"), "pooled needs prefix"),
        ("- 1\n", "not settings `key: value`"),
        ("base: tiny-poled\n", "Did you mean tiny-pooled"),
        ("a: [\n", "mine.yaml"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(write(tmp_path, text))
    assert message in str(caught.value)


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    contract = tabletop_contract()
    with pytest.raises(ConfigError, match="allowed: qwen_vla_0_8b"):
        build("huge", contract, channel_bounds_codec(contract))
    with pytest.raises(ConfigError, match="no such file"):
        load_preset(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"model\.checkpoint=FOLDER"):
        build("qwen_vla_4b", contract, channel_bounds_codec(contract))


@pytest.mark.parametrize("name", ["tabletop_arm", "vln_agent", "mobile_aloha_joint"])
def test_a_new_contract_has_room_for_its_robots_prompt(name: str) -> None:
    embodiment = load_embodiment(name)
    cameras = tuple(CameraSpec(camera, 64, 64) for camera in embodiment.cameras)
    contract = new_contract(cameras, embodiment)
    processor = build("tiny", contract, channel_bounds_codec(contract)).processor
    images = {camera.name: np.zeros((1, 64, 64, 3), np.uint8) for camera in cameras}
    seen = processor(Observations(images, ["put the carrot on the plate"]))["attention_mask"]
    assert 0 <= contract.prompt_tokens - int(seen.sum()) < 12
    assert contract.prompt_tokens == 72 or name != "tabletop_arm"
