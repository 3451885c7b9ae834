"""Where a run's weights come from, and what the config makes of them.

They come from a checkpoint, parts of one or two, a Qwen3.5, or nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vlarl.codec import ActionCodec
from vlarl.config.schema import ModelConfig
from vlarl.contract import Contract
from vlarl.embodiment import Embodiment
from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.backbone import checkpoint_layers
from vlarl.model.checkpoint import load, resolve
from vlarl.model.device import CPU
from vlarl.model.kernels import check_attention, check_compiler, note_missing_kernels
from vlarl.model.lora import add_adapters
from vlarl.model.precision import DTYPES, cast
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
        ConfigError: for a preset that does not fit `init.backbone`; see also `configured`.
    """
    check_machine(config)
    dtype = DTYPES.get(config.dtype)
    if resumed is not None:
        model = load(resumed, dtype, device)
    elif config.checkpoint:
        model = load(checkpoint_of(config.checkpoint), dtype, device)
    elif config.init.backbone and config.init.contract == "checkpoint":
        model = load(checkpoint_of(config.init.backbone), dtype, device)
        if config.init.expert:
            model = combined(model, load(checkpoint_of(config.init.expert), dtype, device))
        else:
            model = with_fresh_expert(model, config.preset, seed)
    else:
        return None
    return configured(model, config).to(device)


def check_given(config: ModelConfig) -> None:
    """Refuse a configured checkpoint that is not there, without reading it.

    Raises:
        CheckpointError: naming it.
    """
    for name in (config.checkpoint, config.init.backbone, config.init.expert):
        if name:
            resolve(name)


def check_machine(config: ModelConfig) -> None:
    """Refuse what this machine cannot do, before anything is read.

    Raises:
        ConfigError: naming what is missing.
    """
    check_attention(config.attention)
    if config.compile:
        check_compiler()


def configured(model: QwenVLA, config: ModelConfig) -> QwenVLA:
    """The same model with the configured number format, attention, adapters and so on.

    Raises:
        ConfigError: for an attention or a compiler that this machine lacks, a target that fits no
            layer, or adapters other than those that the checkpoint has.
    """
    check_machine(config)
    note_missing_kernels(model.config)
    if config.dtype != "auto":
        cast(model, DTYPES[config.dtype])
    if model.config._attn_implementation != config.attention:
        model.backbone.set_attn_implementation(config.attention)
    if config.lora.rank and model.lora is None:
        add_adapters(model.backbone, config.lora)
        model.lora = config.lora
    elif config.lora.rank and model.lora != config.lora:
        raise ConfigError(
            f"model.lora = {config.lora}: the checkpoint has adapters already, {model.lora}. Leave "
            "model.lora out to go on with them, or merge them first: vlarl merge CHECKPOINT out=DIR"
        )
    if config.checkpoint_activations:
        checkpoint_layers(model.backbone)
        model.expert.checkpoint_blocks = True
    if config.compile:
        for module in (
            model.backbone.model.visual,
            model.backbone.model.language_model,
            model.expert,
        ):
            module.compile()
    return model


def given_backbone(config: ModelConfig) -> Pretrained | None:
    """The configured Qwen3.5, None if there is none.

    Raises:
        CheckpointError: if it is missing, damaged or of another kind.
        ConfigError: see `check_machine`.
    """
    check_machine(config)
    if not config.backbone:
        return None
    return load_pretrained(config.backbone, DTYPES.get(config.dtype))


def backbone_of(config: ModelConfig, source: QwenVLA | None) -> Pretrained | None:
    """The backbone of a new model: that of `given_weights`, else the configured Qwen3.5, else None.

    Raises:
        As `given_backbone`.
    """
    if source is None:
        return given_backbone(config)
    own = source.processor
    return Pretrained(source.backbone, own.tokenizer, own.layout)


def given_weights(config: ModelConfig) -> QwenVLA | None:
    """The model whose weights a new one takes, for another contract; None if none is named.

    Of `init.backbone` without `init.expert` the action expert is not to be taken.

    Raises:
        CheckpointError: for a checkpoint that is missing, damaged, or does not fit the other.
        ConfigError: see `check_machine`.
    """
    check_machine(config)
    init, dtype = config.init, DTYPES.get(config.dtype)
    name = init.weights or init.backbone
    if not name:
        return None
    model = load(checkpoint_of(name), dtype)
    if init.expert:
        model = combined(model, load(checkpoint_of(init.expert), dtype))
    return model


def transferred(
    source: QwenVLA,
    contract: Contract,
    codec: ActionCodec,
    further_codecs: Sequence[ActionCodec] = (),
) -> QwenVLA:
    """A model for another contract with the backbone and action expert of `source`.

    No weight of either depends on cameras, horizon or robot. The value head is new, and so is what
    shows a state to the expert, unless it was shown one of the same size.

    Raises:
        CheckpointError: for an expert whose layers are its embodiments'.
    """
    sizes = source.expert_config
    if sizes.projection != "zero_pad":
        raise CheckpointError(
            f"model.init.weights: the expert has layers for each of its embodiments "
            f"({sizes.projection}), which fit no other; only zero_pad can be transferred"
        )
    state_dim = contract.state_dim if contract.state_mode == "dit" else 0
    processor = Processor(source.processor.tokenizer, contract, source.processor.layout)
    model = QwenVLA(
        source.backbone,
        replace(sizes, horizon=contract.tensor_horizon, state_dim=state_dim),
        contract,
        codec,
        processor,
        source.value_head.config,
        further_codecs,
    )
    weights = source.expert.state_dict()
    if state_dim != sizes.state_dim:
        weights = {k: w for k, w in weights.items() if not k.startswith("state_in.")}
    model.expert.to(source.expert_dtype)
    left = model.expert.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith("state_in.") for key in left.missing_keys)
    model.exploration_log_std = source.exploration_log_std
    model.lora = source.lora
    return model


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
    made.lora = model.lora
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
    expert.lora = backbone.lora
    source = backbone.processor
    state = expert.processor.state
    expert.processor = Processor(source.tokenizer, expert.contract, source.layout)
    expert.processor.state = state
    return expert
