"""The sources of a mixture, opened, and what a supervised stage makes of them.

Each dataset belongs to one embodiment, and a new model drives all that there are. Leaves out the
order of the samples (`vlarl.data.mixture`) and their losses (`learners.mixed_losses`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.dataset_checks import cameras_of, check_content, check_dataset, check_views
from actors.hand_demonstrations import HANDS, agreed_eigengrasps, hand_chunks
from learners.step_data import conversation_processor
from vlarl.codec import ActionCodec, fit_action_stats
from vlarl.config.data_schema import SourceConfig
from vlarl.config.embodiments import load_embodiment
from vlarl.config.schema import RunConfig
from vlarl.contract import Contract
from vlarl.data.conversations import ConversationSet
from vlarl.data.episode import INFO_PATH
from vlarl.data.hand_recording import HandTrack, read_tracks
from vlarl.data.hand_samples import HandChunks, HandSource
from vlarl.data.hands import Eigengrasps
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.mixed_batches import EmbodiedChunks, MixedBatches, Source
from vlarl.data.samples import ChunkSource, refuse_short
from vlarl.data.skipped import SkippedEpisodes, readable_actions
from vlarl.data.streaming import open_chunks
from vlarl.embodiment import Embodiment
from vlarl.errors import ConfigError, UserError
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.presets import new_contract
from vlarl.model.pretrained import Pretrained
from vlarl.model.qwen_vla import QwenVLA
from vlarl.progress import Progress

_KEY = "supervised.data.mixture"


@dataclass(frozen=True)
class Recording:
    """One dataset of a source."""

    reader: LeRobotReader
    robot: Embodiment
    skipped: SkippedEpisodes
    tracks: Sequence[dict[str, HandTrack]] = ()
    """Of recorded hands."""


@dataclass(frozen=True)
class OpenedSource:
    """One source of the config: recordings, or conversations."""

    name: str
    weight: float
    recordings: tuple[Recording, ...]
    conversations: ConversationSet | None


@dataclass(frozen=True)
class MixtureData:
    """All sources with a weight above zero."""

    sources: tuple[OpenedSource, ...]
    eigengrasps: str
    """The file that human sources share; empty without any."""
    grasps: Eigengrasps | None

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """All datasets, in the order of the sources."""
        return tuple(each for source in self.sources for each in source.recordings)

    @property
    def skipped(self) -> tuple[SkippedEpisodes, ...]:
        """Corrupt episodes of each dataset, as far as they were met."""
        return tuple(recording.skipped for recording in self.recordings)

    def contract(self, pretrained: Pretrained | None) -> Contract:
        """Of a new model: every embodiment, each with the cameras of its first dataset.

        Raises:
            UserError: for a dataset without a camera that a model may have, or if nothing acts.
        """
        firsts: dict[str, Recording] = {}
        for recording in self.recordings:
            firsts.setdefault(recording.robot.name, recording)
        if not firsts:
            raise UserError(
                f"{_KEY} has conversations alone: name a checkpoint, or add a source with actions"
            )
        first, *others = firsts.values()
        cameras, *further = (cameras_of(each.reader, each.robot) for each in firsts.values())
        said = {row.instruction for each in self.recordings for row in each.reader.episodes}
        return new_contract(
            cameras,
            first.robot,
            pretrained,
            instructions=sorted(sentence for sentence in said if sentence.strip()),
            further_embodiments=[recording.robot for recording in others],
            further_cameras=further if any(own != cameras for own in further) else (),
        )

    def check(self, config: RunConfig, model: QwenVLA) -> None:
        """Hold every dataset and every conversation against the model.

        Raises:
            UserError: for the first that does not fit.
        """
        _refuse_unseen(model.contract, self.recordings)
        for recording in self.recordings:
            place = model.contract.place_of(recording.robot.name)
            reader, skipped = recording.reader, recording.skipped
            if recording.tracks:
                check_views(model.contract, reader, place)
                hands = self._hands(recording, model.contract)
                check_content(model, reader, skipped, hands.extremes(), place)
                continue
            check_dataset(model.contract, reader, place)
            actions = readable_actions(reader, skipped)
            check_content(model, reader, skipped, (actions,), place)
            if not config.supervised.data.pad_short:
                refuse_short(reader, model.contract.horizons[place])
        processor = conversation_processor(model, config.supervised)
        for source in self.sources:
            if source.conversations is not None:
                check_conversations(source.conversations, processor)

    def codecs(self, contract: Contract) -> list[ActionCodec]:
        """Of each embodiment, fitted to all of its datasets together."""
        found = []
        for place, robot in enumerate(contract.embodiments):
            own = [each for each in self.recordings if each.robot.name == robot.name]
            if own[0].tracks:
                tracks = [episode for each in own for episode in each.tracks]
                every = dataclasses.replace(own[0], tracks=tracks)
                stats = self._hands(every, contract).stats()
            else:
                actions = [readable_actions(each.reader, each.skipped) for each in own]
                stats = fit_action_stats(np.concatenate(actions))
            found.append(ActionCodec.of(contract, stats, place))
        return found

    def batches(self, config: RunConfig, contract: Contract) -> MixedBatches:
        """The stream of batches; datasets share `supervised.data.memory_gigabytes` evenly."""
        settings = config.supervised
        datasets = max(1, len(self.recordings))
        memory = int(1e9 * settings.data.memory_gigabytes) // datasets
        sources = [
            Source(
                source.name,
                source.weight,
                tuple(
                    EmbodiedChunks(
                        contract.place_of(recording.robot.name),
                        self._chunks(recording, contract, memory, settings.data.workers),
                    )
                    for recording in source.recordings
                ),
                source.conversations,
            )
            for source in self.sources
        ]
        cameras = [contract.cameras_of(place) for place in range(len(contract.embodiments))]
        return MixedBatches(sources, cameras, settings.batch_size, config.seed)

    def _hands(self, recording: Recording, contract: Contract) -> HandChunks:
        assert self.grasps is not None
        horizon = contract.horizons[contract.place_of(recording.robot.name)]
        return hand_chunks(recording.reader, recording.tracks, self.grasps, horizon)

    def _chunks(
        self, recording: Recording, contract: Contract, memory: int, workers: int
    ) -> ChunkSource:
        horizon = contract.horizons[contract.place_of(recording.robot.name)]
        seen = open_chunks(recording.reader, horizon, memory, recording.skipped, workers=workers)
        return HandSource(seen, self._hands(recording, contract)) if recording.tracks else seen


def open_mixture(config: RunConfig, resumed: Path | None) -> MixtureData | None:
    """The configured sources, opened; None if no mixture is configured.

    `resumed` is the run's own last checkpoint.

    Raises:
        UserError: one for all sources that are not there; else for the first that cannot be read,
            or whose robot is not known or of another kind.
    """
    mixture = config.supervised.data.mixture
    if mixture is None:
        return None
    wanted = {name: source for name, source in mixture.items() if source.weight}
    absent = [f"{name!r} ({s.path})" for name, s in wanted.items() if not Path(s.path).exists()]
    if absent:
        raise UserError(
            f"{_KEY}: {len(absent)} of {len(wanted)} sources are not there: {', '.join(absent)}. "
            f"Name yours, '{_KEY}.NAME.path=FOLDER', or leave a source out: '{_KEY}.NAME.weight=0'"
        )
    fits = [source.eigengrasps for source in wanted.values() if source.kind == "human"]
    grasps = agreed_eigengrasps(config, fits[0], resumed) if fits else None
    opened = []
    for name, source in wanted.items():
        if source.kind == "conversations":
            opened.append(OpenedSource(name, source.weight, (), ConversationSet(source.path)))
            continue
        recordings = [_recording(config, name, source, path) for path in _datasets(source.path)]
        opened.append(OpenedSource(name, source.weight, tuple(recordings), None))
    _refuse_namesakes([each for source in opened for each in source.recordings])
    return MixtureData(tuple(opened), fits[0] if fits else "", grasps)


def _refuse_namesakes(recordings: Sequence[Recording]) -> None:
    """A robot's file is known by its name alone, which two folders may have."""
    firsts: dict[str, Recording] = {}
    for recording in recordings:
        first = firsts.setdefault(recording.robot.name, recording)
        # Recorded hands have their dataset's frequency, which is checked with the dataset.
        if recording.robot != first.robot and not recording.tracks:
            raise UserError(
                f"{_KEY}: datasets {first.reader.path} and {recording.reader.path} are of two "
                f"different robots called {recording.robot.name}: rename one of their files"
            )


def check_conversations(conversations: ConversationSet, processor: ConversationProcessor) -> None:
    """Read every sample once.

    Raises:
        UserError: for the first that is broken, lacks an image, or is too long.
    """
    with Progress("checking conversations", len(conversations), "samples") as progress:
        for conversation in conversations:
            processor.token_count(conversation)
            progress.advance(1)


def _datasets(path: str) -> list[Path]:
    """The folder itself, or those in it that are datasets."""
    folder = Path(path)
    if (folder / INFO_PATH).is_file() or not folder.is_dir():
        return [folder]
    # Without any, opening the folder itself says what is missing.
    return sorted(each for each in folder.iterdir() if (each / INFO_PATH).is_file()) or [folder]


def _recording(config: RunConfig, name: str, source: SourceConfig, path: Path) -> Recording:
    reader = LeRobotReader(path, chosen=source.cameras)
    # Images and hands are matched by number, so that none of them may be left out.
    human = source.kind == "human"
    limit = 0.0 if human else config.supervised.data.skip_limit
    skipped = SkippedEpisodes(reader.path, len(reader), limit)
    if human:
        robot = dataclasses.replace(load_embodiment(HANDS), control_hz=reader.fps)
        return Recording(reader, robot, skipped, read_tracks(reader))
    reference = source.embodiment or str(reader.info.get("robot_type") or "unknown")
    try:
        robot = load_embodiment(reference)
    except ConfigError as error:
        raise UserError(
            f"{_KEY}.{name}: dataset {path} is of robot {reference!r}: {error} Or name its robot: "
            f"'{_KEY}.{name}.embodiment=NAME'"
        ) from error
    if robot.is_navigation != (source.kind == "navigation"):
        kind = "navigation" if robot.is_navigation else "robot"
        raise UserError(
            f"{_KEY}.{name}.kind = {source.kind!r}: dataset {path} is of {robot.name}, which is of "
            f"kind {kind}"
        )
    return Recording(reader, robot, skipped)


def _refuse_unseen(contract: Contract, recordings: Sequence[Recording]) -> None:
    """Raises UserError for a model that is shown more than the rows of a mixture come with."""
    shown = {"the robot's state": contract.shows_state, "a history": contract.history > 0}
    for what, needed in shown.items():
        if needed and recordings:
            raise UserError(
                f"{_KEY}: the model is shown {what}, and a mixture has none. Train it on one "
                "dataset (supervised.data.path), or take its weights for a new model without: "
                "model.init.weights instead of model.checkpoint"
            )
