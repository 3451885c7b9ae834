"""A new robot on weights of others: whose backbone, whose action expert, and whose contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from actors.collect import collect
from actors.supervise import supervise
from vlarl.config.data_schema import CollectConfig
from vlarl.config.load import load_config
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of one robot, and demonstrations by another."""
    path = tmp_path_factory.mktemp("robots")
    few = CollectConfig(episodes=2)
    collect("tabletop", path / "data", few, image_size=SIZE, options={"frame": "base"})
    contract = tabletop_contract(SIZE)
    for seed, name in enumerate(("seeing", "acting")):
        torch.manual_seed(seed)
        model = build("tiny-pooled", contract, channel_bounds_codec(contract))
        model.save_pretrained(path / name)
    return path


def tuned(folder: Path, out: Path, *overrides: str) -> QwenVLA:
    """After one step of the expert alone."""
    given: list[str] = [
        f"output={out}",
        f"supervised.data.path={folder / 'data'}",
        "env.options.frame=base",
        "supervised.collect.episodes=400",
        "supervised.steps=1",
        "supervised.optimizer.warmup_steps=0",
        "supervised.data.grounding_images=0",
        "supervised.grounding_batch_size=0",
        "supervised.optimizer.learning_rates={expert: 1.0e-3}",
        *overrides,
    ]
    found: dict[str, Any] = supervise(load_config("configs/sft/debug.yaml", given))
    return QwenVLA.from_pretrained(found["checkpoint"])


def distance(one: QwenVLA, other: QwenVLA, part: str) -> float:
    def gap(first: Tensor, second: Tensor) -> float:
        return float((first.detach() - second.detach()).abs().max())

    pairs = zip(one.parts()[part], other.parts()[part], strict=True)
    return max(gap(first, second) for first, second in pairs)


def test_backbone_of_one_and_expert_of_another_for_a_robot_that_neither_knew(
    folder: Path, tmp_path: Path
) -> None:
    seeing, acting = (QwenVLA.from_pretrained(folder / name) for name in ("seeing", "acting"))
    start = [f"model.init.backbone={folder}/seeing", "model.init.contract=data"]
    model = tuned(folder, tmp_path, *start, f"model.init.expert={folder}/acting")
    assert model.contract.embodiment.name == "tabletop_arm_turned"
    assert model.codec.stats.to_dict() != acting.codec.stats.to_dict()
    assert distance(model, seeing, "language") == distance(model, seeing, "vision") == 0
    assert distance(model, acting, "language") > 0.01
    # One step of at most 1e-3.
    assert 0 < distance(model, acting, "expert") < 2e-3


def test_without_an_expert_it_is_random_and_the_seed_decides_it(
    folder: Path, tmp_path: Path
) -> None:
    seeing = QwenVLA.from_pretrained(folder / "seeing")
    start = [
        f"model.init.backbone={folder}/seeing",
        "model.init.contract=data",
        "model.preset=tiny-pooled",
    ]
    model = tuned(folder, tmp_path / "a", *start)
    assert distance(model, seeing, "language") == 0
    assert distance(model, seeing, "expert") > 0.05
    assert distance(model, tuned(folder, tmp_path / "b", *start), "expert") == 0
    assert distance(model, tuned(folder, tmp_path / "c", *start, "seed=1"), "expert") > 0.05
