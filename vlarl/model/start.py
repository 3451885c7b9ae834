"""Where a run's weights come from: a checkpoint, two of them, a backbone of the hub, or nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vlarl.config.schema import ModelConfig
from vlarl.embodiment import Embodiment
from vlarl.errors import CheckpointError
from vlarl.model.pretrained import Pretrained, load_pretrained
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.prompt import prompt
from vlarl.runs import checkpoint_of


def given_model(config: ModelConfig, resumed: Path | None = None) -> QwenVLA | None:
    """The run's own last checkpoint, else the configured one or two; None: there is none.

    A configured one is a folder, a run (its last checkpoint) or the name of a packaged one.

    Raises:
        CheckpointError: for a checkpoint that is missing, damaged, or does not fit the other.
    """
    if resumed is not None:
        return QwenVLA.from_pretrained(resumed)
    if config.checkpoint:
        return QwenVLA.from_pretrained(checkpoint_of(config.checkpoint))
    if config.init.backbone:
        return combined(
            QwenVLA.from_pretrained(checkpoint_of(config.init.backbone)),
            QwenVLA.from_pretrained(checkpoint_of(config.init.expert)),
        )
    return None


def given_backbone(config: ModelConfig) -> Pretrained | None:
    """The configured Qwen3.5, None if there is none.

    Raises:
        CheckpointError: if it is missing, damaged or of another kind.
    """
    return load_pretrained(config.backbone) if config.backbone else None


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
    expert.processor = Processor(source.tokenizer, expert.contract, source.layout)
    return expert
