"""Runs a supervised stage: model, demonstrations and grounding scenes, trainer, run folder.

Whatever a user can get wrong is found out before the run folder is made and demonstrations are
collected. Composition root of `learners.supervised`; all happens in this process, without Ray.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from actors.collect import collect, make_grounding
from actors.controller import Interrupt, last_checkpoint
from actors.dataset_checks import (
    cameras_of,
    check_content,
    check_dataset,
    check_robot,
    check_views,
)
from actors.evaluation_during import evaluation_during
from actors.experts import make_tabletop
from actors.hand_demonstrations import hand_contract, open_hands
from actors.learner_group import divide
from actors.mixture_data import MixtureData, check_conversations, open_mixture
from actors.saving import Saving
from actors.stage_run import process_group, resume, run_folder, saver, train_stage
from actors.suite_checks import check_supervised, described
from learners.binding import BindingTrainer
from learners.localization import LocalizationTrainer
from learners.step_data import conversation_processor
from learners.supervised import SupervisedTrainer
from vlarl.codec import ActionCodec, fit_action_stats
from vlarl.config.embodiments import load_embodiment
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
from vlarl.errors import ConfigError
from vlarl.model.device import resolved
from vlarl.model.presets import build, channel_bounds_codec, new_contract
from vlarl.model.pretrained import Pretrained
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.start import (
    backbone_of,
    configured,
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
    mixture = open_mixture(config, checkpoint)
    model, is_new, data = _resolved(config, checkpoint, mixture)
    conversations = _conversations(config, model)
    with run_folder(config) as run, Interrupt.watching() as interrupt:
        if data is None and mixture is None:
            reader = LeRobotReader(_demonstrations(config, run, interrupt))
            check_dataset(model.contract, reader)
            data = _Data(reader, None, _skipped(config, reader))
        if is_new:
            _fit(model, data, mixture)
        dataset = None if data is None else _chunks(config, data, model.contract)
        batches = None if mixture is None else mixture.batches(config, model.contract)
        scenes = _grounding(config, interrupt)
        saved = -1 if checkpoint is None else first
        sees_now = checkpoint is None and config.supervised.localization.steps > 0
        if config.resume == "auto":
            run.forget_after(saved)
        if sees_now and dataset is not None:
            _learn_to_see(model, config, scenes, dataset.sentences, run, interrupt)
        skipped = _skips(data, mixture)
        divide(config, model)
        trainer = SupervisedTrainer(
            model,
            config.supervised,
            dataset,
            scenes,
            config.seed,
            run,
            conversations,
            batches,
            skipped,
            offload=config.runtime.offload == "optimizer",
        )
        resume(trainer, checkpoint)

        eigengrasps = mixture.eigengrasps if mixture else config.supervised.data.eigengrasps

        def keep_fit(folder: Path) -> None:
            if eigengrasps:
                shutil.copy(fit_file(eigengrasps), folder / FIT)

        saving = Saving(run, saver(run, model, trainer, keep_fit), saved)
        if sees_now:
            saving.attempt(0)
        with evaluation_during(config, model) as judge:
            found = train_stage(config, run, trainer, interrupt, saving, judge)
    return found | {"skipped_episodes": sum(len(each) for each in skipped)}


class _Data(NamedTuple):
    """The dataset of a run."""

    reader: LeRobotReader
    hands: HandChunks | None
    skipped: SkippedEpisodes
    """Its corrupt episodes, as far as they were met."""


def _skips(data: _Data | None, mixture: MixtureData | None) -> Sequence[SkippedEpisodes]:
    if mixture is not None:
        return mixture.skipped
    return () if data is None else (data.skipped,)


def _resolved(
    config: RunConfig, checkpoint: Path | None, mixture: MixtureData | None
) -> tuple[QwenVLA, bool, _Data | None]:
    """Model, whether it is a new one, and the configured dataset, after checking all of them.

    A new model's codecs must yet be fitted to the data.
    """
    model, is_new = _model(config, checkpoint, mixture)
    check_supervised(config, model.contract)
    data = config.supervised.data
    if mixture is not None:
        mixture.check(config, model)
    if not data.path:
        return model, is_new, None
    if data.eigengrasps:
        reader = LeRobotReader(data.path)
        hands = open_hands(config, model.contract, reader, checkpoint)
        check_views(model.contract, reader)
        # Images and hands are matched by number, so that none of them may be left out.
        skipped = SkippedEpisodes(reader.path, len(reader), limit=0.0)
        check_content(model, reader, skipped, hands.extremes())
        return model, is_new, _Data(reader, hands, skipped)
    reader = _reader(config)
    check_robot(model.contract, data.embodiment)
    check_dataset(model.contract, reader)
    skipped = _skipped(config, reader)
    check_content(model, reader, skipped, (readable_actions(reader, skipped),))
    if not data.pad_short:
        refuse_short(reader, model.contract.horizon)
    return model, is_new, _Data(reader, None, skipped)


def _reader(config: RunConfig) -> LeRobotReader:
    """The configured dataset."""
    data = config.supervised.data
    return LeRobotReader(data.path, chosen=data.cameras)


def _instructions(config: RunConfig) -> list[str]:
    """The sentences of the dataset; none if there is no dataset yet."""
    rows = _reader(config).episodes if config.supervised.data.path else ()
    said = {row.instruction for row in rows}
    # What is blank is refused later, with its place.
    return sorted(sentence for sentence in said if sentence.strip())


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
                options=config.env.options,
                servers=config.env.servers,
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
    check_conversations(conversations, conversation_processor(model, config.supervised))
    return conversations


def _model(
    config: RunConfig, resumed: Path | None, mixture: MixtureData | None
) -> tuple[QwenVLA, bool]:
    """The run's own last weights, the configured checkpoint's, or new ones: True."""
    device = resolved(config.runtime.device)
    model = given_model(config.model, resumed, config.seed, device)
    if model is not None:
        return model, False
    source = given_weights(config.model)
    pretrained = backbone_of(config.model, source)
    if mixture is not None:
        contract = mixture.contract(pretrained)
    elif config.supervised.data.eigengrasps:
        contract = hand_contract(config.supervised.data.path, pretrained)
    else:
        contract = _contract(config, pretrained)
    torch.manual_seed(config.seed)
    places = range(len(contract.embodiments))
    codec, *further = (channel_bounds_codec(contract, place) for place in places)
    if source is not None and (config.model.init.weights or config.model.init.expert):
        built = transferred(source, contract, codec, further)
    else:
        built = build(config.model.preset, contract, codec, pretrained, further)
        built.lora = None if source is None else source.lora
    return configured(built, config.model).to(device), True


def _contract(config: RunConfig, pretrained: Pretrained | None) -> Contract:
    """Of a new model for the configured dataset's robot, or for that of the suite."""
    name, model = config.supervised.data.embodiment, config.model
    if name:
        embodiment = load_embodiment(name)
        cameras = cameras_of(_reader(config), embodiment)
    else:
        spec = described(config.env)
        embodiment, cameras = load_embodiment(spec.embodiment), spec.cameras
    return new_contract(
        cameras,
        embodiment,
        pretrained,
        embodiment.horizon,
        _instructions(config),
        _state(config),
        history=model.history,
        history_hz=model.history_hz,
    )


def _state(config: RunConfig) -> tuple[str, int]:
    """Mode and dimension of a new model's state: the dataset's, or that of who will make it."""
    mode = config.model.state
    if mode == "none":
        return mode, 0
    if config.supervised.data.path:
        return mode, _reader(config).state_dim
    return mode, described(config.env).state_dim


def _skipped(config: RunConfig, reader: LeRobotReader) -> SkippedEpisodes:
    return SkippedEpisodes(reader.path, len(reader), config.supervised.data.skip_limit)


def _chunks(config: RunConfig, data: _Data, contract: Contract) -> ChunkSource:
    settings, past = config.supervised.data, contract.past_frames
    memory, workers = int(1e9 * settings.memory_gigabytes), settings.workers
    seen = open_chunks(data.reader, contract.horizon, memory, data.skipped, past, workers)
    return seen if data.hands is None else HandSource(seen, data.hands)


def _fit(model: QwenVLA, data: _Data | None, mixture: MixtureData | None) -> None:
    """Statistics of a new model: of its actions and, where it is shown any, states."""
    contract = model.contract
    if mixture is not None:
        model.codec, *further = mixture.codecs(contract)
        model.further_codecs = tuple(further)
        return
    assert data is not None
    if data.hands is not None:
        stats = data.hands.stats()
    else:
        stats = fit_action_stats(readable_actions(data.reader, data.skipped))
    model.codec = ActionCodec.of(contract, stats)
    if contract.shows_state:
        model.processor.state = fit_state_codec(readable_states(data.reader, data.skipped))
