"""Runs a supervised stage: model, demonstrations and grounding scenes, trainer, run folder.

Whatever a user can get wrong is found out before the run folder is made and demonstrations are
collected. Composition root of `learners.supervised`; all happens in this process, without Ray.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from actors.collect import collect, make_grounding
from actors.controller import Interrupt, last_checkpoint
from actors.env_host import EnvAccess, EnvHost
from actors.evaluation import EvaluationRequest, evaluate
from actors.experts import ROBOTS, make_demonstrated, make_tabletop
from actors.hand_demonstrations import hand_contract, open_hands
from actors.rollout_worker import policy_of
from actors.stage_run import process_group, resume, run_folder, saver, train_stage
from envservers.registry import config_options, find_suite, make_suite
from learners.binding import BindingTrainer
from learners.localization import LocalizationTrainer
from learners.shares import Peers
from learners.supervised import Metrics, SupervisedTrainer, conversation_processor
from vlarl.action_range import check_recorded
from vlarl.codec import ActionCodec, fit_action_stats
from vlarl.config.schema import RunConfig
from vlarl.contract import Contract
from vlarl.data.conversations import ConversationSet
from vlarl.data.grounding import GroundingSet
from vlarl.data.hand_fit import FIT, fit_file
from vlarl.data.hand_samples import HandChunks, HandSource
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.samples import ChunkSource, refuse_short
from vlarl.data.skipped import SkippedEpisodes, readable_actions, readable_states
from vlarl.data.streaming import open_chunks
from vlarl.errors import ConfigError, UserError
from vlarl.model.device import resolved
from vlarl.model.presets import build, channel_bounds_codec, robot_contract
from vlarl.model.pretrained import Pretrained
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import (
    configured,
    given_backbone,
    given_model,
    given_weights,
    transferred,
)
from vlarl.progress import Progress
from vlarl.runs import RunFolder
from vlarl.state import fit_state_codec

DEMONSTRATIONS = "demonstrations"
_SCENES_AT_ONCE = 32

logger = logging.getLogger(__name__)


def supervise(config: RunConfig) -> dict[str, Any]:
    """One CPT or SFT, from scratch, from a checkpoint, or continued (`resume: auto`).

    Returns:
        As `train_stage`, and `skipped_episodes` (corrupt ones).

    Raises:
        UserError: for a config, dataset or checkpoint that does not fit; nothing is written then.
        KeyboardInterrupt: if it was interrupted before there was anything to save.
        FloatingPointError: if training diverged.
    """
    torch.set_num_threads(config.runtime.threads)
    with process_group(config):
        return _supervise(config)


def _supervise(config: RunConfig) -> dict[str, Any]:
    RunFolder.refuse_taken(config)
    checkpoint, first = last_checkpoint(config)
    model, is_new, data = _resolved(config, checkpoint)
    conversations = _conversations(config, model)
    with run_folder(config) as run, Interrupt.watching() as interrupt:
        if data is None:
            reader = _opened(_demonstrations(config, run, interrupt), model.contract)
            data = _Data(reader, None, _skipped(config, reader))
        if is_new:
            model.codec = _fitted(model.contract, data)
            if model.contract.shows_state:
                states = readable_states(data.reader, data.skipped)
                model.processor.state = fit_state_codec(states)
        dataset, hands = _chunks(config, data, model.contract), data.hands
        scenes = _grounding(config, interrupt)
        sees_now = checkpoint is None and config.supervised.localization.steps > 0
        if config.resume == "auto":
            run.forget_after(-1 if checkpoint is None else first)
        if sees_now:
            _learn_to_see(model, config, scenes, dataset.sentences, run, interrupt)
        trainer = SupervisedTrainer(
            model, config.supervised, dataset, scenes, config.seed, run, conversations
        )
        resume(trainer, checkpoint)

        def keep_fit(folder: Path) -> None:
            if hands is not None:
                shutil.copy(fit_file(config.supervised.data.eigengrasps), folder / FIT)

        save = saver(run, model, trainer, keep_fit)
        if sees_now:
            save(0)
        with _evaluation(config, model) as judge:
            found = train_stage(config, run, trainer, interrupt, save, judge)
    return found | {"skipped_episodes": len(data.skipped)}


class _Data(NamedTuple):
    """The dataset of a run."""

    reader: LeRobotReader
    hands: HandChunks | None
    skipped: SkippedEpisodes
    """Its corrupt episodes, as far as they were met."""


def _resolved(config: RunConfig, checkpoint: Path | None) -> tuple[QwenVLA, bool, _Data | None]:
    """Model, whether it is a new one, and the configured dataset, after checking all of them.

    A new model's codec must yet be fitted to the dataset.
    """
    model, is_new = _model(config, checkpoint)
    _check_suite(config, model.contract)
    data = config.supervised.data
    if not data.path:
        return model, is_new, None
    if data.eigengrasps:
        reader = LeRobotReader(data.path)
        hands = open_hands(config, model.contract, reader, checkpoint)
        _check_views(model.contract, reader)
        # Images and hands are matched by number, so that none of them may be left out.
        skipped = SkippedEpisodes(reader.path, len(reader), limit=0.0)
        _check_content(model, reader, skipped, hands.extremes())
        return model, is_new, _Data(reader, hands, skipped)
    reader = _opened(data.path, model.contract)
    skipped = _skipped(config, reader)
    _check_content(model, reader, skipped, (readable_actions(reader, skipped),))
    if not data.pad_short:
        refuse_short(reader, model.contract.horizon)
    return model, is_new, _Data(reader, None, skipped)


def _instructions(path: str) -> list[str]:
    """The sentences of a dataset; none if there is no dataset yet."""
    return sorted({row.instruction for row in LeRobotReader(path).episodes}) if path else []


def _reached(progress: Progress, interrupt: Interrupt) -> Callable[..., None]:
    """Shows how far work is that leaves nothing half done, and ends it if that is wished for."""

    def reach(done: int, *_: object) -> None:
        if interrupt.pressed:
            raise KeyboardInterrupt
        progress.reach(done)

    return reach


def _demonstrations(config: RunConfig, run: RunFolder, interrupt: Interrupt) -> Path:
    """The run's own dataset, collected unless it is there already."""
    folder = run.path / DEMONSTRATIONS
    if not folder.exists():
        wanted = config.supervised.collect
        with Progress("collecting", wanted.episodes, "episodes") as progress:
            collect(
                config.env.suite,
                folder,
                wanted,
                tasks=config.env.tasks,
                image_size=config.env.image_size,
                threads=config.runtime.threads,
                progress=_reached(progress, interrupt),
            )
    return folder


def _learn_to_see(
    model: QwenVLA,
    config: RunConfig,
    scenes: GroundingSet | None,
    sentences: Sequence[str],
    run: RunFolder,
    interrupt: Interrupt,
) -> None:
    """Localization and binding before the stage proper; their errors are logged at step 0.

    Raises:
        KeyboardInterrupt: if it was interrupted; nothing is logged then.
    """
    settings = config.supervised.localization
    if scenes is None:
        raise ConfigError(
            f"supervised.localization.steps is {settings.steps} but there are no scenes: "
            "set supervised.data.grounding_images"
        )
    with Progress("learning to see", settings.steps) as progress:
        trainer = LocalizationTrainer(model, settings, scenes, config.seed)
        error = trainer.train(
            lambda step, found: progress.reach(step, **found), lambda: interrupt.pressed
        )
    errors = {"localization_error": error}
    if settings.binding_steps and not interrupt.pressed:
        with Progress("binding words", settings.binding_steps) as progress:
            binding = BindingTrainer(model, settings, scenes, sentences, config.seed)
            errors["binding_error"] = binding.train(
                lambda step, found: progress.reach(step, **found), lambda: interrupt.pressed
            )
    if interrupt.pressed:
        raise KeyboardInterrupt
    run.log(0, **errors)


def _grounding(config: RunConfig, interrupt: Interrupt) -> GroundingSet | None:
    """Rendered anew at each start, the same for the same seed; None if not asked for."""
    count = config.supervised.data.grounding_images
    if count == 0:
        return None
    suite = make_tabletop(
        config.env.suite,
        _SCENES_AT_ONCE,
        image_size=config.env.image_size,
        threads=config.runtime.threads,
    )
    with Progress("rendering scenes", count, "scenes") as progress:
        grounding = make_grounding(suite, count, config.seed, _reached(progress, interrupt))
    suite.close()
    return grounding


def _conversations(config: RunConfig, model: QwenVLA) -> ConversationSet | None:
    """The configured set, every sample of it read once; None if not asked for.

    Raises:
        UserError: for the first sample that is broken, lacks an image, or is too long.
    """
    path = config.supervised.data.conversations
    if not path:
        return None
    conversations = ConversationSet(path)
    processor = conversation_processor(model, config.supervised)
    with Progress("checking conversations", len(conversations), "samples") as progress:
        for conversation in conversations:
            processor.token_count(conversation)
            progress.advance(1)
    return conversations


def _model(config: RunConfig, resumed: Path | None) -> tuple[QwenVLA, bool]:
    """The run's own last weights, the configured checkpoint's, or new ones: True."""
    device = resolved(config.runtime.device)
    model = given_model(config.model, resumed, config.seed, device)
    if model is not None:
        return model, False
    source = given_weights(config.model, config.model.init.weights)
    if source is None:
        pretrained = given_backbone(config.model)
    else:
        own = source.processor
        pretrained = Pretrained(source.backbone, own.tokenizer, own.layout)
    if config.supervised.data.eigengrasps:
        contract = hand_contract(config.supervised.data.path, pretrained)
    else:
        contract = robot_contract(
            ROBOTS.get(config.env.suite, ROBOTS["tabletop"]),
            config.env.image_size,
            pretrained,
            _state(config),
            config.model.history,
            config.model.history_hz,
            _instructions(config.supervised.data.path),
        )
    torch.manual_seed(config.seed)
    codec = channel_bounds_codec(contract)
    if source is None:
        built = build(config.model.preset, contract, codec, pretrained)
    else:
        built = transferred(source, contract, codec)
    return configured(built, config.model).to(device), True


def _state(config: RunConfig) -> tuple[str, int]:
    """Mode and dimension of a new model's state: the dataset's, or that of who will make it."""
    mode, path = config.model.state, config.supervised.data.path
    if mode == "none":
        return mode, 0
    if path:
        return mode, LeRobotReader(path).state_dim
    suite = make_demonstrated(config.env.suite, 1)
    dimension = suite.spec.state_dim
    suite.close()
    return mode, dimension


def _skipped(config: RunConfig, reader: LeRobotReader) -> SkippedEpisodes:
    return SkippedEpisodes(reader.path, len(reader), config.supervised.data.skip_limit)


def _chunks(config: RunConfig, data: _Data, contract: Contract) -> ChunkSource:
    memory = int(1e9 * config.supervised.data.memory_gigabytes)
    seen = open_chunks(data.reader, contract.horizon, memory, data.skipped, contract.past_frames)
    return seen if data.hands is None else HandSource(seen, data.hands)


def _fitted(contract: Contract, data: _Data) -> ActionCodec:
    if data.hands is not None:
        return ActionCodec.of(contract, data.hands.stats())
    return ActionCodec.of(contract, fit_action_stats(readable_actions(data.reader, data.skipped)))


def _check_suite(config: RunConfig, contract: Contract) -> None:
    """Raises UserError for an unknown suite, task or option, or one that does not fit the model."""
    find_suite(config.env.suite)
    settings, env = config.supervised, config.env
    if not settings.data.path or settings.data.grounding_images:
        make = make_tabletop if settings.data.grounding_images else make_demonstrated
        make(env.suite, 1).close()
    elif not settings.eval_every or env.mode == "connect":
        return
    suite = make_suite(env.suite, 1, **config_options(env))
    contract.check(suite.spec)
    suite.close()


def _opened(path: str | Path, contract: Contract) -> LeRobotReader:
    reader = LeRobotReader(path)
    _check_dataset(contract, reader)
    return reader


def _check_dataset(contract: Contract, reader: LeRobotReader) -> None:
    """Raises UserError if the dataset's cameras, frequency or actions are not the contract's."""
    _check_views(contract, reader)
    channels = tuple(channel.name for channel in contract.embodiment.channels)
    if reader.action_names != channels:
        words = f"{reader.action_names}, expected {channels}"
        raise UserError(f"dataset {reader.path} does not fit the model: actions: {words}")


def _check_views(contract: Contract, reader: LeRobotReader) -> None:
    """Raises UserError if what is seen, and how often, is not what the contract says."""
    lacking = set(contract.cameras) - set(reader.cameras)
    if lacking:
        words = f"cameras: lacks {lacking}"
    elif reader.fps != contract.embodiment.control_hz:
        words = f"fps: {reader.fps}, expected {contract.embodiment.control_hz}"
    elif contract.shows_state and reader.state_dim != contract.state_dim:
        words = f"state: {reader.state_dim} numbers, expected {contract.state_dim}"
    else:
        return
    raise UserError(f"dataset {reader.path} does not fit the model: {words}")


def _check_content(
    model: QwenVLA,
    reader: LeRobotReader,
    skipped: SkippedEpisodes,
    actions: Sequence[NDArray[np.float32]],
) -> None:
    """Raises UserError for an instruction or an action [frames, c] that the model cannot take.

    `actions` are of all episodes but the `skipped` ones.
    """
    lengths = [0 if row.index in skipped.reasons else row.length for row in reader.episodes]
    first = {row.instruction: row.index for row in reversed(reader.episodes)}
    for sentence, episode in first.items():
        try:
            model.processor.check_instruction(sentence)
        except ValueError as error:
            raise UserError(f"dataset {reader.path}: episode {episode}: {error}") from error
    try:
        for part in actions:
            for words in check_recorded(part, lengths, model.contract.embodiment.channels):
                logger.warning("dataset %s: %s", reader.path, words)
    except ValueError as error:
        raise UserError(f"dataset {reader.path}: {error}") from error


@contextmanager
def _evaluation(config: RunConfig, model: QwenVLA) -> Iterator[Callable[[int], Metrics] | None]:
    """What measures success during training, with servers of its own; None if not asked for."""
    if config.supervised.eval_every == 0 or not Peers.joined().leads:
        yield None
        return
    settings = config.evaluation
    request = EvaluationRequest(settings.episodes, settings.seed, config.env.tasks)
    host = None if config.env.mode == "inprocess" else EnvHost(config.env)
    try:
        access = EnvAccess(config.env, host)
        spec = access.clients[0].spec
        model.contract.check(spec)
        policy = policy_of(model, config, model.contract.place_of(spec.embodiment))

        def judge(step: int) -> Metrics:
            played = evaluate(
                policy,
                access.clients,
                request,
                restart=access.restart,
                max_restarts=config.env.restarts,
            )
            summary = played.summary
            tasks = summary["tasks"].items()
            found = {f"eval_success_rate/{task}": row["success_rate"] for task, row in tasks}
            return {"eval_success_rate": summary["success_rate"], **found}

        yield judge
        access.close()
    finally:
        if host is not None:
            host.close()
