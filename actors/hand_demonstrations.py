"""Recorded human hands as the demonstrations of a supervised stage.

Leaves out the mathematics (`vlarl.data.hands`) and the recording's layout (`hand_recording`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlarl.config.embodiments import load_embodiment
from vlarl.config.schema import RunConfig
from vlarl.contract import Contract
from vlarl.data.hand_fit import FIT, read_eigengrasps
from vlarl.data.hand_recording import HandTrack, read_tracks
from vlarl.data.hand_samples import HandChunks
from vlarl.data.hands import Eigengrasps
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError
from vlarl.model.presets import new_contract
from vlarl.model.pretrained import Pretrained
from vlarl.runs import checkpoint_of

HANDS = "human_hands"


def hand_contract(path: str, pretrained: Pretrained | None) -> Contract:
    """Of a new model for recorded hands: the dataset's frequency, and its egocentric camera.

    Raises:
        UserError: for a dataset without such a camera, or with images of a size without patches.
    """
    reader = LeRobotReader(path)
    embodiment = dataclasses.replace(load_embodiment(HANDS), control_hz=reader.fps)
    cameras = tuple(camera for camera in reader.cameras if camera.name in embodiment.cameras)
    if not cameras:
        raise UserError(
            f"dataset {reader.path} does not fit {HANDS}: it has no camera "
            f"{', '.join(embodiment.cameras)}, only {[camera.name for camera in reader.cameras]}"
        )
    sentences = [row.instruction for row in reader.episodes]
    return new_contract(cameras, embodiment, pretrained, instructions=sentences)


def open_hands(
    config: RunConfig, contract: Contract, reader: LeRobotReader, resumed: Path | None
) -> HandChunks:
    """The chunks of the configured dataset, by the configured eigengrasps.

    Raises:
        UserError: if the model's channels are not those of hands, its checkpoint was trained with
            other eigengrasps, or the dataset holds no hands.
    """
    fit = config.supervised.data.eigengrasps
    if contract.embodiment.channels != load_embodiment(HANDS).channels:
        raise UserError(
            f"supervised.data.eigengrasps = {fit!r}: the model drives {contract.embodiment.name}, "
            f"whose channels are not those of {HANDS}. Name a checkpoint of human hands, or none "
            "for a new model"
        )
    grasps = agreed_eigengrasps(config, fit, resumed)
    return hand_chunks(reader, read_tracks(reader), grasps, contract.horizon)


def agreed_eigengrasps(config: RunConfig, fit: str, resumed: Path | None) -> Eigengrasps:
    """Those of a file, which must be those that the run's checkpoint was trained with.

    Raises:
        UserError: if they are not, or the file holds none.
    """
    grasps = read_eigengrasps(fit)
    given = config.model.checkpoint or config.model.init.expert
    source = resumed or (Path(checkpoint_of(given)) if given else None)
    if source is not None and (source / FIT).is_file():
        theirs = read_eigengrasps(source)
        if not (np.array_equal(theirs.basis, grasps.basis) and (theirs.mean == grasps.mean).all()):
            raise UserError(
                f"supervised.data.eigengrasps = {fit!r}: {source} was trained with others. "
                f"Use supervised.data.eigengrasps={source / FIT}"
            )
    return grasps


def hand_chunks(
    reader: LeRobotReader,
    tracks: Sequence[dict[str, HandTrack]],
    grasps: Eigengrasps,
    horizon: int,
) -> HandChunks:
    """The chunks of recorded hands.

    Raises:
        UserError: if no hand was seen throughout any of them.
    """
    try:
        return HandChunks(tracks, grasps, horizon)
    except ValueError as error:
        raise UserError(f"dataset {reader.path}: {error}") from error
