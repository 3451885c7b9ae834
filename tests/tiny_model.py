"""A tiny model of the real classes in which nothing is zero, and what it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vlarl.config.schema import ModelConfig
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import configured
from vlarl.observations import Observations

INSTRUCTION = "Pick up the red cube"
LINEAR = """
base: tiny
backbone:
  text_config:
    {layer_types: [linear_attention, full_attention], linear_num_key_heads: 2,
     linear_num_value_heads: 4, linear_key_head_dim: 16, linear_value_head_dim: 16}
"""


def linear_preset(folder: Path) -> str:
    """A preset with a layer of linear attention."""
    file = folder / "linear.yaml"
    file.write_text(LINEAR)
    return str(file)


def make_model(preset: str = "tiny", config: ModelConfig | None = None, seed: int = 0) -> QwenVLA:
    """Random weights, configured afterwards, so that they are the same for every config."""
    contract = tabletop_contract()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(preset, contract, channel_bounds_codec(contract))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return configured(model, config or ModelConfig()).eval()


def move_adapters(model: QwenVLA) -> None:
    """Adapters as if they had learned something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parts()["lora"]:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def images(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random pictures of both cameras."""
    random = np.random.default_rng(seed)
    cameras = ("ego", "cam_right_wrist")
    return {name: random.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for name in cameras}


def observed(n: int, seed: int = 0) -> Observations:
    """`images`, each with the same sentence."""
    return Observations(images(n, seed), [INSTRUCTION] * n)


def outputs(model: QwenVLA, n: int = 3) -> dict[str, torch.Tensor]:
    """Hidden states, velocity and value of some fixed observations and chunks."""
    context = model.encode(model.processor(Observations(images(n), [INSTRUCTION] * n)))
    mask = model.codec.mask(n)
    noisy = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    velocity = model.velocity(context, noisy, torch.linspace(0.1, 0.9, n), mask)
    return {"hidden": context["hidden"], "velocity": velocity, "value": model.value(context)}


def gradients(model: QwenVLA) -> dict[str, torch.Tensor]:
    """Of every parameter that some output depends on, in training mode."""
    model.train().zero_grad()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    found = outputs(model)
    loss = found["velocity"].square().sum() + found["hidden"].square().mean()
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
