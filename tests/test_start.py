"""Where weights come from: one checkpoint, or the backbone of one and the expert of another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from vlarl.config.load import load_config
from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import given_model
from vlarl.runs import RunFolder


def saved(folder: Path, seed: int, preset: str = "tiny") -> QwenVLA:
    torch.manual_seed(seed)
    contract = tabletop_contract()
    model = build(preset, contract, channel_bounds_codec(contract))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    return model


def config_of(*overrides: str):
    return load_config("configs/rl/debug.yaml", list(overrides)).model


def test_two_checkpoints_give_the_backbone_of_one_and_the_expert_of_the_other(
    tmp_path: Path,
) -> None:
    seeing, acting = saved(tmp_path / "a", 0), saved(tmp_path / "b", 1)
    both = given_model(
        config_of(f"model.init.backbone={tmp_path}/a", f"model.init.expert={tmp_path}/b")
    )
    assert both is not None
    for name, tensor in both.state_dict().items():
        source = seeing if name.startswith("backbone.") else acting
        assert torch.equal(tensor, source.state_dict()[name]), name
    both.save_pretrained(tmp_path / "both")
    again = QwenVLA.from_pretrained(tmp_path / "both")
    assert torch.equal(again.state_dict()["backbone.lm_head.weight"], both.backbone.lm_head.weight)


def test_a_backbone_alone_gets_a_fresh_expert_of_the_preset(tmp_path: Path) -> None:
    seeing = saved(tmp_path / "a", 0, "tiny-pooled")
    config = config_of(f"model.init.backbone={tmp_path}/a", "model.preset=tiny-prefix")
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    fresh, again, other = (given_model(config, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), drawn)
    assert fresh is not None
    assert again is not None
    assert other is not None
    assert fresh.expert_config == dataclasses.replace(seeing.expert_config, pooled=False)
    assert fresh.contract == seeing.contract
    assert fresh.codec.stats.to_dict() == seeing.codec.stats.to_dict()
    for name, tensor in fresh.backbone.state_dict().items():
        assert torch.equal(tensor, seeing.backbone.state_dict()[name]), name
    first, same, another = (m.expert.context_in.weight for m in (fresh, again, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, another)
    assert not fresh.value_head.out.weight.any()
    fresh.save_pretrained(tmp_path / "new")
    assert QwenVLA.from_pretrained(tmp_path / "new").expert_config == fresh.expert_config


def test_a_fresh_expert_must_be_made_for_the_backbone(tmp_path: Path) -> None:
    saved(tmp_path / "a", 0)
    (tmp_path / "heads.yaml").write_text(
        "base: tiny\nbackbone: {text_config: {head_dim: 64}}\nexpert: {head_dim: 64}\n"
    )
    for preset, message in (
        ("qwen_vla_0_8b", "128 wide, preset qwen_vla_0_8b is made for 1024"),
        (f"{tmp_path}/heads.yaml", "32 wide in its attention heads"),
    ):
        with pytest.raises(ConfigError, match=message):
            given_model(config_of(f"model.init.backbone={tmp_path}/a", f"model.preset={preset}"))


def test_the_runs_own_checkpoint_comes_before_the_configured_one(tmp_path: Path) -> None:
    first, own = saved(tmp_path / "first", 0), saved(tmp_path / "own", 1)
    config = config_of(f"model.checkpoint={tmp_path}/first")
    for resumed, expected in ((None, first), (tmp_path / "own", own)):
        found = given_model(config, resumed)
        assert found is not None
        assert torch.equal(found.value_head.out.weight, expected.value_head.out.weight)
    assert given_model(config_of("model.checkpoint=")) is None


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a", 0)
    (tmp_path / "wide.yaml").write_text(
        "base: tiny\nbackbone: {text_config: {hidden_size: 64}, vision_config: {out_hidden_size: "
        "64}}\n"
    )
    saved(tmp_path / "b", 1, str(tmp_path / "wide.yaml"))
    config = config_of(f"model.init.backbone={tmp_path}/a", f"model.init.expert={tmp_path}/b")
    with pytest.raises(CheckpointError, match="hidden_size is 128, the expert was made for 64"):
        given_model(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.init.expert=a"], "model.init.backbone = '': is missing beside model.init.expert"),
        (
            ["model.init.backbone=a", "model.init.expert=b", "model.preset=tiny-prefix"],
            "model.preset = 'tiny-prefix': has no effect with model.init.expert",
        ),
        (
            ["model.init.backbone=a", "model.init.expert=b", "model.backbone=c"],
            "model.backbone = 'c': has no effect with model.init",
        ),
        (
            ["model.init.backbone=a", "model.init.contract=data"],
            "model.init.contract = 'data': has no effect with stage=rl",
        ),
        (["model.init.contract=b"], "model.init.contract = 'b': no such choice"),
        (
            ["model.checkpoint=a", "model.backbone=c"],
            "model.backbone = 'c': has no effect with model.checkpoint",
        ),
    ],
)
def test_contradictions_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of("model.checkpoint=", *overrides)
    assert message in str(caught.value)


def test_a_run_folder_means_its_last_checkpoint_and_a_changed_one_is_refused(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / "run")
    with run.checkpoint(3) as folder:
        model = saved(folder, 0)
    config = config_of(f"model.checkpoint={run.path}")
    found = given_model(config)
    assert found is not None
    assert torch.equal(found.value_head.out.weight, model.value_head.out.weight)
    weights = run.path / "checkpoints" / "step_3" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for name in (run.path, weights.parent):
        with pytest.raises(CheckpointError, match=r"model.safetensors was changed"):
            given_model(config_of(f"model.checkpoint={name}"))
