"""The model of a run: continued, given, or random; for the robots of its suites."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from vlarl.config.embodiments import load_embodiment
from vlarl.config.schema import RunConfig
from vlarl.contract import Contract
from vlarl.embodiment import UNNAMED, Embodiment, embodiment_name, embodiment_of, layout_of
from vlarl.errors import CheckpointError
from vlarl.model.device import resolved
from vlarl.model.presets import build, channel_bounds_codec, new_contract
from vlarl.model.pretrained import Pretrained
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import configured, given_backbone, given_model, with_embodiment
from vlarl.types import EnvSpec

logger = logging.getLogger(__name__)


def load_model(
    config: RunConfig, spec: EnvSpec, *further: EnvSpec, checkpoint: Path | None = None
) -> QwenVLA:
    """The run's own checkpoint if it continues, else the configured one, else random weights.

    Random weights are drawn from `config.seed`, the same on each device, and fit `spec`. Where
    `spec` is of another robot than the checkpoint's, with the same channels, the prompt names that
    one, with a warning. `further` are those of the other suites, where there are several.

    Raises:
        CheckpointError: for a checkpoint that is missing or damaged.
        ConfigError: for an embodiment that cannot be read, a device that is not there, or settings
            of the model that it or this machine cannot follow.
    """
    device = resolved(config.runtime.device)
    model = given_model(config.model, checkpoint, config.seed, device)
    if model is not None:
        return model if further else _for_robot(model, spec)
    pretrained = given_backbone(config.model)
    contract = _contract(config, (spec, *further), pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        codec, *others = (
            channel_bounds_codec(contract, place) for place in range(len(contract.embodiments))
        )
        model = build(config.model.preset, contract, codec, pretrained, others)
        return configured(model, config.model).to(device)


def _contract(
    config: RunConfig, specs: Sequence[EnvSpec], pretrained: Pretrained | None
) -> Contract:
    """Of a new model for the robots of all suites; of two suites with one robot, the first's."""
    robots: dict[str, tuple[Embodiment, EnvSpec]] = {}
    said = []
    for group, spec in zip(config.env.groups.values(), specs, strict=True):
        if spec.embodiment == UNNAMED:
            robot = embodiment_of(spec)
            # Environments that do not say what to do are told their own name.
            said.append(str(group.options.get("instruction") or spec.tasks[0]))
        else:
            robot = load_embodiment(spec.embodiment)
        robots.setdefault(robot.name, (robot, spec))
    (first, spec), *further = robots.values()
    cameras = [other.cameras for _, other in further]
    alike = all(own == spec.cameras for own in cameras)
    return new_contract(
        spec.cameras,
        first,
        pretrained,
        instructions=said,
        further_embodiments=[robot for robot, _ in further],
        history=config.model.history,
        history_hz=config.model.history_hz,
        further_cameras=() if alike else cameras,
    )


def _for_robot(model: QwenVLA, spec: EnvSpec) -> QwenVLA:
    """The model with the environments' robot in its prompt, if only the prompt tells them apart.

    What else differs is for `Contract.check` to say.

    Raises:
        CheckpointError: if the environments' channels are the checkpoint's, but not the robot's.
    """
    ours = model.contract.embodiment
    names = [embodiment.name for embodiment in model.contract.embodiments]
    if spec.embodiment == UNNAMED or embodiment_name(spec.embodiment) in names:
        return model
    robot = load_embodiment(spec.embodiment)
    if robot.layout != ours.layout:
        if layout_of(spec.channels) == ours.layout:
            raise CheckpointError(
                f"embodiment {robot.name}: its {len(robot.channels)} action channels "
                f"({robot.channels[0].name}, ...) are not those of the checkpoint and the "
                f"environments ({', '.join(channel.name for channel in ours.channels)}). Name a "
                "robot that has them"
            )
        return model
    logger.warning(
        "the checkpoint never saw the robot %s: it was trained as %s. The prompt will name %s all "
        "the same. The action channels are alike, so the weights stay as they are, and so do the "
        "action statistics: no action beyond those of %s is ever made. Success may be low.",
        robot.name,
        ours.name,
        robot.robot_tag,
        ours.name,
    )
    return with_embodiment(model, robot)
