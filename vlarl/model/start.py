"""Where a run's weights come from: a checkpoint, parts of one or two, a Qwen3.5, or nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from vlarl.config.schema import ModelConfig
from vlarl.embodiment import Embodiment
from vlarl.errors import CheckpointError
from vlarl.model.device import CPU
from vlarl.model.presets import build
from vlarl.model.pretrained import Pretrained, load_pretrained
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.prompt import prompt
from vlarl.runs import checkpoint_of


def given_model(
    config: ModelConfig, resumed: Path | None = None, seed: int = 0, device: torch.device = CPU
) -> QwenVLA | None:
    """The run's own last checkpoint, else the configured one or two; None: there is none.

    A configured one is a folder, a run (its last checkpoint) or the name of a packaged one.

    Args:
        config: names the checkpoints.
        resumed: the run's own last one.
        seed: of the expert and value head that `init.backbone` alone lacks.
        device: where the model is to live.

    Raises:
        CheckpointError: for a checkpoint that is missing, damaged, or does not fit the other.
        ConfigError: for a preset that does not fit `init.backbone`.
    """
    if resumed is not None:
        return QwenVLA.from_pretrained(resumed, device)
    if config.checkpoint:
        return QwenVLA.from_pretrained(checkpoint_of(config.checkpoint), device)
    if config.init.backbone:
        backbone = QwenVLA.from_pretrained(checkpoint_of(config.init.backbone), device)
        if not config.init.expert:
            return with_fresh_expert(backbone, config.preset, seed).to(device)
        expert = QwenVLA.from_pretrained(checkpoint_of(config.init.expert), device)
        return combined(backbone, expert)
    return None


def given_backbone(config: ModelConfig) -> Pretrained | None:
    """The configured Qwen3.5, None if there is none.

    Raises:
        CheckpointError: if it is missing, damaged or of another kind.
    """
    return load_pretrained(config.backbone) if config.backbone else None


def with_fresh_expert(model: QwenVLA, preset: str, seed: int) -> QwenVLA:
    """All of `model` but its action expert and value head, which are the preset's, random.

    The baseline of the paper's Fig. 7b whose action expert is trained from scratch.

    Raises:
        ConfigError: if the preset is unknown or made for another backbone.
    """
    source = model.processor
    pretrained = Pretrained(model.backbone, source.tokenizer, source.layout)
    # Callers' random numbers must not depend on where weights come from.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build(preset, model.contract, model.codec, pretrained, model.further_codecs)
    made.processor.state = source.state
    return made


def with_embodiment(model: QwenVLA, robot: Embodiment) -> QwenVLA:
    """The same weights and action statistics, with another robot in the prompt (section 4.2).

    Changes `model`; there is room for the longer of the two prompts.
    """
    processor, contract = model.processor, model.contract
    _, before = processor.tokens_of(prompt(contract.embodiment, "go", contract.horizon))
    _, after = processor.tokens_of(prompt(robot, "go", contract.horizon))
    model.contract = replace(
        contract,
        embodiment=robot,
        prompt_tokens=contract.prompt_tokens + max(0, after - before),
    )
    model.processor = Processor(processor.tokenizer, model.contract, processor.layout)
    model.processor.state = processor.state
    return model


def combined(backbone: QwenVLA, expert: QwenVLA) -> QwenVLA:
    """The backbone of one model, with its tokenizer and image settings, and the rest of the other.

    Raises:
        CheckpointError: if the expert was made for hidden states of another width, or for another
            rotary embedding.
    """
    ours, theirs = backbone.config.text_config, expert.config.text_config
    for key in ("hidden_size", "head_dim", "rope_parameters"):
        found, needed = getattr(ours, key), getattr(theirs, key)
        if found != needed:
            raise CheckpointError(
                f"model.init: the backbone's {key} is {found}, the expert was made for {needed}"
            )
    expert.backbone, expert.config = backbone.backbone, backbone.config
    source = backbone.processor
    state = expert.processor.state
    expert.processor = Processor(source.tokenizer, expert.contract, source.layout)
    expert.processor.state = state
    return expert
