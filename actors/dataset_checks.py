"""Whether a dataset fits the model that is to learn from it, before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlarl.action_range import check_recorded
from vlarl.config.embodiments import load_embodiment
from vlarl.contract import Contract
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.skipped import SkippedEpisodes
from vlarl.embodiment import Embodiment
from vlarl.errors import UserError
from vlarl.model.qwen_vla import QwenVLA
from vlarl.types import VIEWS, CameraSpec

logger = logging.getLogger(__name__)


_ROBOT = (
    "Name the dataset's robot: supervised.data.embodiment=NAME, or that of a mixture's source. "
    "`vlarl info embodiments` lists them; for other names, another order or frequency give a YAML "
    "file of your own (docs/embodiments.md)"
)
_CAMERAS = (
    "Say which is which: supervised.data.cameras={ego: NAME_IN_THE_DATASET}, or `cameras` of a "
    "mixture's source"
)
_SIZES = (
    "A new model sees images as they are with supervised.data.embodiment=NAME, and else squares of "
    "env.image_size; those of a checkpoint stay (model.init.weights=CHECKPOINT starts a new model)"
)


def cameras_of(reader: LeRobotReader, robot: Embodiment) -> tuple[CameraSpec, ...]:
    """What a new model sees of a dataset: the robot's cameras that it has, in the prompt's order.

    Raises:
        UserError: if it has none of them; if one was chosen that the robot does not have; or if one
            is missing while the dataset has others, whose names say nothing: it may be among them.
    """
    offered = {camera.name: camera for camera in reader.cameras}
    wanted = robot.cameras or VIEWS
    found = tuple(offered[name] for name in wanted if name in offered)
    in_doubt = len(found) < len(wanted) and offered.keys() - set(VIEWS)
    if not found or in_doubt or reader.chosen.keys() - set(wanted):
        words = f"cameras are {_seen(reader.cameras)}; {robot.name} has {', '.join(wanted)}"
        raise UserError(f"dataset {reader.path} does not fit {robot.name}: {words}. {_CAMERAS}")
    return found


def check_robot(contract: Contract, name: str) -> None:
    """Raises UserError if a model drives another robot than the one that is named; empty: any."""
    if name and load_embodiment(name).channels != contract.embodiment.channels:
        raise UserError(
            f"supervised.data.embodiment = {name!r}: the checkpoint drives "
            f"{contract.embodiment.name}. A new model for another robot starts from its weights: "
            "model.init.weights=CHECKPOINT instead of model.checkpoint"
        )


def check_dataset(contract: Contract, reader: LeRobotReader, place: int = 0) -> None:
    """Raises UserError if cameras, frequency or actions are not those of embodiment `place`."""
    robot = contract.embodiments[place]
    channels = tuple(channel.name for channel in robot.channels)
    if reader.action_names != channels:
        words = (
            f"actions: {', '.join(reader.action_names) or 'without names'}; {robot.name} has "
            f"{', '.join(channels)}. {_ROBOT}"
        )
        raise UserError(f"dataset {reader.path} does not fit the model: {words}")
    check_views(contract, reader, place)


def check_views(contract: Contract, reader: LeRobotReader, place: int = 0) -> None:
    """Raises UserError if what is seen, and how often, is not what the contract says."""
    expected, robot = contract.cameras_of(place), contract.embodiments[place]
    if set(expected) - set(reader.cameras):
        named = {camera.name for camera in reader.cameras}
        remedy = _SIZES if all(camera.name in named for camera in expected) else _CAMERAS
        words = f"cameras: {_seen(reader.cameras)}; the model has {_seen(expected)}. {remedy}"
    elif reader.fps != robot.control_hz:
        words = f"fps: {reader.fps:g}; {robot.name} has {robot.control_hz:g}. {_ROBOT}"
    elif contract.shows_state and reader.state_dim != contract.state_dim:
        words = f"state: {reader.state_dim} numbers, expected {contract.state_dim}"
    else:
        return
    raise UserError(f"dataset {reader.path} does not fit the model: {words}")


def _seen(cameras: Sequence[CameraSpec]) -> str:
    return ", ".join(f"{c.name} ({c.height} x {c.width})" for c in cameras) or "none"


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
