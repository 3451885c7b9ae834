"""Runs text-to-action pretraining (paper sections 3.1 and 5.2.1): the first stage.

The action expert learns from sentences and trajectories; the backbone is frozen and sees no image.
Composition root of `learners.supervised` for this stage; without Ray and without simulators.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from actors.controller import Interrupt, last_checkpoint
from actors.learner_group import divide
from actors.saving import Saving
from actors.stage_run import process_group, resume, run_folder, saver, train_stage
from learners.supervised import SupervisedTrainer
from vlarl.action_range import check_recorded
from vlarl.codec import ActionCodec
from vlarl.config.data_schema import TextToActionConfig
from vlarl.config.embodiments import load_embodiment
from vlarl.config.schema import RunConfig
from vlarl.contract import Contract
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.skipped import SkippedEpisodes
from vlarl.data.text_chunks import TextChunks
from vlarl.data.trajectories import (
    RecordedTrajectories,
    SynthesizedTrajectories,
    Trajectories,
    every_action,
    trajectory_stats,
)
from vlarl.embodiment import Embodiment
from vlarl.errors import CheckpointError, UserError
from vlarl.model.device import resolved
from vlarl.model.presets import build, new_contract
from vlarl.model.pretrained import Pretrained
from vlarl.model.processor import Processor
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import backbone_of, configured, given_model, given_weights
from vlarl.model.tokenizer import load_tiny_tokenizer
from vlarl.prompt import prompt
from vlarl.runs import RunFolder
from vlarl.synthesis.arm import load_arm
from vlarl.synthesis.dataset import SynthesisDataset
from vlarl.synthesis.embodiment import arm_embodiment
from vlarl.synthesis.motion import RATE

WINDOW = 16
"""Control steps of a synthesized arm's chunk, as of manipulation in the paper (section 4.1)."""

logger = logging.getLogger(__name__)


class _Robot(NamedTuple):
    """One robot and its trajectories."""

    embodiment: Embodiment
    trajectories: Trajectories


def text_to_action(config: RunConfig) -> dict[str, Any]:
    """One text-to-action pretraining, or its continuation (`resume: auto`).

    Returns:
        As `train_stage`; and `trajectories`, `samples`, `skipped_episodes`.

    Raises:
        UserError: for a config, dataset or checkpoint that does not fit; nothing is written then.
        FloatingPointError: if training diverged.
    """
    torch.set_num_threads(config.runtime.threads)
    with process_group(config):
        RunFolder.refuse_taken(config)
        checkpoint, first = last_checkpoint(config)
        data = config.supervised.data.t2a
        whole = data.prediction == "trajectory"
        synthetic = _synthetic(data, whole) if data.synthetic else []
        real, skipped = _real(config, whole) if data.real else ([], 0)
        robots = [*synthetic, *real]
        dataset = TextChunks(
            [robot.trajectories for robot in robots],
            len(synthetic),
            data.synthetic_share,
            () if whole else [robot.embodiment.horizon for robot in robots],
        )
        model = _model(config, robots, dataset, checkpoint)
        with run_folder(config) as run, Interrupt.watching() as interrupt:
            saved = -1 if checkpoint is None else first
            if config.resume == "auto":
                run.forget_after(saved)
            divide(config, model)
            trainer = SupervisedTrainer(
                model,
                config.supervised,
                dataset,
                None,
                config.seed,
                run,
                offload=config.runtime.offload == "optimizer",
            )
            resume(trainer, checkpoint)
            saving = Saving(run, saver(run, model, trainer), saved)
            found = train_stage(config, run, trainer, interrupt, saving)
    counts = {
        "trajectories": sum(len(robot.trajectories.lengths) for robot in robots),
        "samples": len(dataset),
        "skipped_episodes": skipped,
    }
    return found | counts


def _synthetic(data: TextToActionConfig, whole: bool) -> list[_Robot]:
    dataset, hertz = SynthesisDataset(data.synthetic), data.synthetic_hz
    robots = []
    for name in dataset.robots:
        own = SynthesizedTrajectories(dataset, name, round(RATE / hertz))
        horizon = int(own.lengths.max()) if whole else WINDOW
        robots.append(_Robot(arm_embodiment(load_arm(name), horizon, hertz), own))
    return robots


def _real(config: RunConfig, whole: bool) -> tuple[list[_Robot], int]:
    """The recorded robot, and how many of its episodes are corrupt."""
    data = config.supervised.data
    embodiment = load_embodiment(data.t2a.embodiment)
    reader = LeRobotReader(data.t2a.real)
    channels = tuple(channel.name for channel in embodiment.channels)
    where = f"supervised.data.t2a.real = {data.t2a.real}"
    if reader.action_names != channels:
        raise UserError(f"{where}: actions are {reader.action_names}, expected {channels}")
    if reader.fps != embodiment.control_hz:
        raise UserError(f"{where}: fps is {reader.fps}, expected {embodiment.control_hz}")
    skipped = SkippedEpisodes(reader.path, len(reader), data.skip_limit)
    own = RecordedTrajectories(reader, skipped)
    try:
        actions = np.concatenate(list(every_action(own)))
        for words in check_recorded(actions, own.lengths.tolist(), embodiment.channels):
            logger.warning("%s: %s", where, words)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if whole:
        embodiment = replace(embodiment, horizon=int(own.lengths.max()))
    return [_Robot(embodiment, own)], len(skipped)


def _model(
    config: RunConfig, robots: Sequence[_Robot], dataset: TextChunks, resumed: Path | None
) -> QwenVLA:
    """The run's own last weights, or a new action expert on the configured backbone."""
    device = resolved(config.runtime.device)
    embodiments = tuple(robot.embodiment for robot in robots)
    if resumed is not None:
        model = given_model(config.model, resumed, config.seed, device)
        assert model is not None
        if model.contract.embodiments != embodiments:
            raise CheckpointError(
                f"{resumed} was trained on other data: resume=auto needs the same"
            )
        return model
    source = given_weights(config.model)
    pretrained = backbone_of(config.model, source)
    contract = _contract(embodiments, dataset, pretrained)
    codecs = [
        ActionCodec.of(contract, trajectory_stats(robot.trajectories), place)
        for place, robot in enumerate(robots)
    ]
    torch.manual_seed(config.seed)
    built = build(config.model.preset, contract, codecs[0], pretrained, codecs[1:])
    built.lora = None if source is None else source.lora
    return configured(built, config.model).to(device)


def _contract(
    robots: Sequence[Embodiment], dataset: TextChunks, pretrained: Pretrained | None
) -> Contract:
    """Of a model without cameras, with room for the longest prompt of the data."""
    contract = new_contract(
        (),
        robots[0],
        pretrained,
        tensor_horizon=max(robot.horizon for robot in robots),
        further_embodiments=robots[1:],
    )
    tokenizer = load_tiny_tokenizer() if pretrained is None else pretrained.tokenizer
    processor = Processor(tokenizer, contract)
    try:
        room = max(
            processor.tokens_of(prompt(robots[place], sentence, steps or robots[place].horizon))[1]
            for place, sentence, steps in dataset.prompts()
        )
    except ValueError as error:
        raise UserError(f"supervised.data.t2a: {error}") from error
    return replace(contract, prompt_tokens=room)
