"""Models from presets (`vlarl.config.presets`): their sizes, or the model with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from vlarl.codec import ActionCodec, ActionStats
from vlarl.config.embodiments import load_embodiment
from vlarl.config.presets import read_preset, refuse_unknown
from vlarl.contract import Contract
from vlarl.embodiment import Embodiment
from vlarl.errors import ConfigError
from vlarl.model.backbone import build_backbone
from vlarl.model.dit import ActionExpert
from vlarl.model.expert_config import ExpertConfig
from vlarl.model.patches import PatchLayout
from vlarl.model.pretrained import Pretrained
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.tokenizer import load_tiny_tokenizer
from vlarl.model.value_head import ValueConfig, ValueHead
from vlarl.prompt import prompt
from vlarl.state import BINS
from vlarl.types import CameraSpec

_TOKENIZERS = ("tiny", "backbone")
TEXT_TOKENS = 64
"""Room for the chat template, view tags and the sentence about robot and task, at least."""
INSTRUCTION_TOKENS = {"tiny": 11, "backbone": 32}
"""tokenizer -> room for the task's own words. Every token costs time on a CPU."""
_EXPERT_KEYS = {field.name for field in fields(ExpertConfig)} - {
    "channels", "horizon", "state_dim", "embodiments",
}  # fmt: skip
"""The others are the contract's."""


@dataclass(frozen=True)
class Preset:
    """One size of the model."""

    name: str
    tokenizer: str
    """`tiny`: the one that ships here; `backbone`: comes with the backbone's weights."""
    backbone: dict[str, Any]
    """Keywords of transformers' `Qwen3_5Config`."""
    expert: dict[str, Any]
    """Keywords of `ExpertConfig`, but for what the contract decides."""
    value: ValueConfig

    def backbone_config(self) -> Qwen3_5Config:
        """Sizes of the backbone."""
        return Qwen3_5Config(**self.backbone)

    def expert_config(self, contract: Contract) -> ExpertConfig:
        """Sizes of the action expert, for this contract's action tensor."""
        return ExpertConfig(
            channels=contract.tensor_channels,
            horizon=contract.tensor_horizon,
            state_dim=contract.state_dim if contract.state_mode == "dit" else 0,
            embodiments=()
            if self.expert.get("projection", "zero_pad") == "zero_pad"
            else tuple(len(embodiment.channels) for embodiment in contract.embodiments),
            **self.expert,
        )


def load_preset(name: str) -> Preset:
    """The shipped preset of this name, or that of a YAML file.

    Raises:
        ConfigError: for an unknown name, or a file that does not describe a model.
    """
    values = read_preset(name)
    where = f"model preset {name}"
    try:
        preset = Preset(
            name=name,
            tokenizer=values["tokenizer"],
            backbone=values["backbone"],
            expert=values["expert"],
            value=ValueConfig(**values.get("value", {})),
        )
        _check_backbone(preset, where)
        refuse_unknown(preset.expert, _EXPERT_KEYS, f"{where}: expert")
        ExpertConfig(**preset.expert)
    except KeyError as error:
        raise ConfigError(f"{where}: {error.args[0]} is missing") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if preset.tokenizer not in _TOKENIZERS:
        raise ConfigError(
            f"{where}: tokenizer = {preset.tokenizer!r}; allowed: {', '.join(_TOKENIZERS)}"
        )
    return preset


def build(
    preset: str,
    contract: Contract,
    codec: ActionCodec,
    pretrained: Pretrained | None = None,
    further_codecs: Sequence[ActionCodec] = (),
) -> QwenVLA:
    """A model with random weights, drawn from torch's global generator.

    Args:
        preset: its sizes.
        contract: what it will see and do.
        codec: of the actions of its first embodiment.
        pretrained: a backbone that has its weights already; the preset then brings the rest.
        further_codecs: of the contract's further embodiments.

    Raises:
        ConfigError: for an unknown preset, one whose tokenizer comes with a backbone that is not
            given, or a backbone of another width or head size than the preset's.
    """
    sizes = load_preset(preset)
    config, expert = sizes.backbone_config(), sizes.expert_config(contract)
    if pretrained is not None:
        given, made_for = pretrained.backbone.config.text_config, config.text_config
        for key, noun in (("hidden_size", "wide"), ("head_dim", "wide in its attention heads")):
            found, expected = getattr(given, key), getattr(made_for, key)
            if found != expected:
                raise ConfigError(
                    f"the backbone is {found} {noun}, preset {preset} is made for {expected}. "
                    "Choose another model.preset, or a YAML file of your own"
                )
        processor = Processor(pretrained.tokenizer, contract, pretrained.layout)
        return QwenVLA(
            pretrained.backbone, expert, contract, codec, processor, sizes.value, further_codecs
        )
    if sizes.tokenizer != "tiny":
        raise ConfigError(
            f"model preset {preset}: its tokenizer comes with the backbone's weights. Name their "
            "folder, model.backbone=FOLDER, or a whole checkpoint, model.checkpoint=FOLDER"
        )
    layout = PatchLayout(patch_size=config.vision_config.patch_size)
    processor = Processor(load_tiny_tokenizer(), contract, layout)
    return QwenVLA(config, expert, contract, codec, processor, sizes.value, further_codecs)


class Modules(NamedTuple):
    """What holds a model's parameters."""

    backbone: Qwen3_5ForConditionalGeneration
    expert: ActionExpert
    value_head: ValueHead


def modules_of(preset: Preset, expert: ExpertConfig | None = None) -> Modules:
    """A model of this size on the meta device: shapes without memory.

    `expert` replaces the preset's.
    """
    config = preset.backbone_config()
    with torch.device("meta"):
        return Modules(
            build_backbone(config),
            ActionExpert(expert or ExpertConfig(**preset.expert), config.text_config),
            ValueHead(preset.value, config.text_config.hidden_size),
        )


def new_contract(
    cameras: tuple[CameraSpec, ...],
    embodiment: Embodiment,
    pretrained: Pretrained | None = None,
    tensor_horizon: int | None = None,
    instructions: Sequence[str] = (),
    state: tuple[str, int] = ("none", 0),
    further_embodiments: Sequence[Embodiment] = (),
    history: int = 0,
    history_hz: float = 2.0,
    further_cameras: Sequence[tuple[CameraSpec, ...]] = (),
) -> Contract:
    """What a new model for these cameras and this robot expects, with room for its prompt.

    `instructions` are some that it must have room for; without any, room for a short sentence.
    `state` is the contract's mode and dimension. A `history` of so many frames makes the prompt
    longer: by the tokens of an image, and those of a timestamp, for every two frames.

    Raises:
        ConfigError: for a camera without view tags, a size without a patch grid, or a history that
            the camera or the patches are too slow for.
    """
    robots = (embodiment, *further_embodiments)
    origin = "tiny" if pretrained is None else "backbone"
    try:
        contract = Contract(
            cameras=cameras,
            horizon=embodiment.horizon,
            embodiment=embodiment,
            further_embodiments=robots[1:],
            further_cameras=tuple(further_cameras),
            tensor_horizon=tensor_horizon or max(16, *(robot.horizon for robot in robots)),
            state_mode=state[0],
            state_dim=state[1],
            history=history,
            history_hz=history_hz,
        )
        if pretrained is None:
            processor = Processor(load_tiny_tokenizer(), contract)
        else:
            processor = Processor(pretrained.tokenizer, contract, pretrained.layout)
    except ValueError as error:
        remedy = "env.image_size=64, or other images in the dataset"
        if "history" in str(error):
            remedy = "model.history=0"
        raise ConfigError(f"cameras: {error}. Try {remedy}") from error
    room = TEXT_TOKENS
    for robot in robots:
        images, text = processor.tokens_of(prompt(robot, "go", robot.horizon))
        room = max(room, text + INSTRUCTION_TOKENS[origin])
        for sentence in instructions:
            room = max(room, processor.tokens_of(prompt(robot, sentence, robot.horizon))[1])
    room += state_tokens(processor)
    return dataclasses.replace(contract, prompt_tokens=images + room)


def state_tokens(processor: Processor) -> int:
    """Tokens that the longest state adds to a prompt; 0 where the prompt shows none."""
    contract = processor.contract
    if contract.state_mode != "vlm_prompt":
        return 0

    def length(state: list[int] | None) -> int:
        said = prompt(contract.embodiment, "go", contract.horizon, state)
        return processor.tokens_of(said)[1]

    return max(length([bin] * contract.state_dim) for bin in range(BINS)) - length(None)


def tabletop_contract(
    image_size: int = 64,
    pretrained: Pretrained | None = None,
    state: tuple[str, int] = ("none", 0),
) -> Contract:
    """What a policy for the `tabletop` suite expects: two cameras and the `tabletop_arm`."""
    return robot_contract("tabletop_arm", image_size, pretrained, state)


def robot_contract(
    robot: str,
    image_size: int,
    pretrained: Pretrained | None = None,
    state: tuple[str, int] = ("none", 0),
    history: int = 0,
    history_hz: float = 2.0,
    instructions: Sequence[str] = (),
) -> Contract:
    """Of a new model for an embodiment, all of whose cameras have square images of this size.

    It has room for `instructions`.
    """
    embodiment = load_embodiment(robot)
    cameras = tuple(CameraSpec(name, image_size, image_size) for name in embodiment.cameras)
    horizon = embodiment.horizon
    return new_contract(
        cameras,
        embodiment,
        pretrained,
        horizon,
        instructions,
        state=state,
        history=history,
        history_hz=history_hz,
    )


def channel_bounds_codec(contract: Contract, place: int = 0) -> ActionCodec:
    """A codec from an embodiment's bounds, for when no dataset has been seen yet."""
    channels = contract.embodiments[place].channels
    stats = ActionStats(
        np.asarray([channel.low for channel in channels], np.float32),
        np.asarray([channel.high for channel in channels], np.float32),
    )
    return ActionCodec.of(contract, stats, place)


def _check_backbone(preset: Preset, where: str) -> None:
    """Transformers takes any keyword; a misspelt one would leave the default in place."""
    known = Qwen3_5Config()
    for key, config in (
        ("", known),
        ("text_config", known.text_config),
        ("vision_config", known.vision_config),
    ):
        values = preset.backbone[key] if key else preset.backbone
        refuse_unknown(values, set(config.to_dict()), f"{where}: backbone.{key}".rstrip("."))
