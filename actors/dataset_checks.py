"""Whether a dataset fits the model that is to learn from it, before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlarl.action_range import check_recorded
from vlarl.contract import Contract
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.skipped import SkippedEpisodes
from vlarl.errors import UserError
from vlarl.model.qwen_vla import QwenVLA

logger = logging.getLogger(__name__)


def check_dataset(contract: Contract, reader: LeRobotReader, place: int = 0) -> None:
    """Raises UserError if cameras, frequency or actions are not those of embodiment `place`."""
    check_views(contract, reader, place)
    channels = tuple(channel.name for channel in contract.embodiments[place].channels)
    if reader.action_names != channels:
        words = f"{reader.action_names}, expected {channels}"
        raise UserError(f"dataset {reader.path} does not fit the model: actions: {words}")


def check_views(contract: Contract, reader: LeRobotReader, place: int = 0) -> None:
    """Raises UserError if what is seen, and how often, is not what the contract says."""
    lacking = set(contract.cameras_of(place)) - set(reader.cameras)
    control_hz = contract.embodiments[place].control_hz
    if lacking:
        words = f"cameras: lacks {lacking}"
    elif reader.fps != control_hz:
        words = f"fps: {reader.fps}, expected {control_hz}"
    elif contract.shows_state and reader.state_dim != contract.state_dim:
        words = f"state: {reader.state_dim} numbers, expected {contract.state_dim}"
    else:
        return
    raise UserError(f"dataset {reader.path} does not fit the model: {words}")


def check_content(
    model: QwenVLA,
    reader: LeRobotReader,
    skipped: SkippedEpisodes,
    actions: Sequence[NDArray[np.float32]],
    place: int = 0,
) -> None:
    """Raises UserError for an instruction or an action [frames, c] that the model cannot take.

    `actions` are of all episodes but the `skipped` ones.
    """
    lengths = [0 if row.index in skipped.reasons else row.length for row in reader.episodes]
    first = {row.instruction: row.index for row in reversed(reader.episodes)}
    for sentence, episode in first.items():
        try:
            model.processor.check_instruction(sentence, place)
        except ValueError as error:
            raise UserError(f"dataset {reader.path}: episode {episode}: {error}") from error
    channels = model.contract.embodiments[place].channels
    try:
        for part in actions:
            for words in check_recorded(part, lengths, channels):
                logger.warning("dataset %s: %s", reader.path, words)
    except ValueError as error:
        raise UserError(f"dataset {reader.path}: {error}") from error
