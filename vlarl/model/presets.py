"""Model sizes by name, and the contract of the built-in suite. Numbers only; no weights.

`tiny` is the real class with small numbers, made for two CPU cores and images of 64 x 64;
`tiny-pooled` is the same size with the pooled variant of the action expert.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import Qwen3_5Config, Qwen3_5TextConfig

from vlarl.codec import ActionCodec, ActionStats
from vlarl.config.embodiments import load_embodiment
from vlarl.contract import Contract
from vlarl.model.dit import ExpertConfig
from vlarl.model.processor import PatchLayout, Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.tokenizer import load_tiny_tokenizer, token_id
from vlarl.model.value_head import ValueConfig
from vlarl.types import CameraSpec

PRESETS = ("tiny", "tiny-pooled")
TINY_PATCH = 16


def tabletop_contract(image_size: int = 64, prompt_tokens: int = 72) -> Contract:
    """What a policy for the `tabletop` suite expects: two cameras and the `tabletop_arm`."""
    embodiment = load_embodiment("tabletop_arm")
    return Contract(
        cameras=tuple(CameraSpec(name, image_size, image_size) for name in embodiment.cameras),
        horizon=embodiment.horizon,
        embodiment=embodiment,
        prompt_tokens=prompt_tokens,
        tensor_horizon=embodiment.horizon,
    )


def channel_bounds_codec(contract: Contract) -> ActionCodec:
    """A codec from the embodiment's bounds, for when no dataset has been seen yet."""
    channels = contract.embodiment.channels
    stats = ActionStats(
        np.asarray([channel.low for channel in channels], np.float32),
        np.asarray([channel.high for channel in channels], np.float32),
    )
    return ActionCodec(stats, contract.horizon, contract.tensor_channels, contract.tensor_horizon)


def tiny_backbone_config(
    tokenizer: Any, patch_size: int = TINY_PATCH, layer_types: tuple[str, ...] | None = None
) -> Qwen3_5Config:
    """A Qwen3.5 with a linear-attention layer, a full-attention layer and a three-block ViT."""
    layers = list(layer_types or ("full_attention", "full_attention"))
    return Qwen3_5Config(
        text_config={
            "vocab_size": 1152,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": len(layers),
            "layer_types": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 64,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "pad_token_id": None,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": patch_size,
            "out_hidden_size": 128,
            "num_position_embeddings": 64,
            # The tanh approximation costs four times as much on a CPU.
            "hidden_act": "gelu",
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )


def tiny_expert_config(contract: Contract, pooled: bool = False) -> ExpertConfig:
    """Three blocks of width 96."""
    return ExpertConfig(
        width=96,
        blocks=3,
        heads=3,
        head_dim=32,
        channels=contract.tensor_channels,
        horizon=contract.tensor_horizon,
        prefix=pooled,
        pooled=pooled,
    )


def build(preset: str, contract: Contract, codec: ActionCodec) -> QwenVLA:
    """A model with random weights, drawn from torch's global generator.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown model preset {preset!r}; allowed: {', '.join(PRESETS)}")
    tokenizer = load_tiny_tokenizer()
    processor = Processor(tokenizer, contract, PatchLayout(patch_size=TINY_PATCH))
    return QwenVLA(
        tiny_backbone_config(tokenizer),
        tiny_expert_config(contract, pooled=preset == "tiny-pooled"),
        contract,
        codec,
        processor,
        ValueConfig(hidden=64, elapsed=True),
    )


def paper_text_config() -> Qwen3_5TextConfig:
    """The language model of Qwen3.5-4B, whose class defaults are those of the 9B."""
    return Qwen3_5TextConfig(
        vocab_size=248_320,
        hidden_size=2560,
        intermediate_size=9216,
        num_hidden_layers=32,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=256,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000_000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [11, 11, 10],
            "mrope_interleaved": True,
        },
    )


def paper_expert_config() -> ExpertConfig:
    """The action expert that has the paper's parameter counts: 70.8M a block, 1.15B in all."""
    return ExpertConfig(width=1536, blocks=16, heads=24, head_dim=256)
