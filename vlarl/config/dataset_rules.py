"""Rules of a dataset's robot and cameras, of `supervised.data` and of a mixture's sources alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vlarl.config.checks import without_effect
from vlarl.config.embodiments import load_embodiment
from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig
from vlarl.errors import ConfigError
from vlarl.types import VIEWS

_DATA = "supervised.data"


def dataset_rules(config: RunConfig) -> Iterator[Problem]:
    """Problems of `supervised.data.embodiment` and `supervised.data.cameras`."""
    data, keys = config.supervised.data, [f"{_DATA}.embodiment", f"{_DATA}.cameras"]
    if not data.path:
        yield from without_effect(config, keys, "supervised.data.path empty")
    if data.eigengrasps:
        yield from without_effect(config, keys, "supervised.data.eigengrasps")
    yield from robot_problems(keys[0], data.embodiment)
    yield from camera_problems(keys[1], data.cameras)


def robot_problems(key: str, embodiment: str) -> Iterator[Problem]:
    """A name or file that is not empty must be that of a robot."""
    if not embodiment:
        return
    try:
        load_embodiment(embodiment)
    except ConfigError as error:
        yield Problem(key, "names no robot", f"{error}.".replace("..", "."))


def camera_problems(key: str, cameras: Mapping[str, str]) -> Iterator[Problem]:
    """Views of the model, each with a camera of the dataset of its own."""
    unknown = [view for view in cameras if view not in VIEWS]
    if unknown:
        remedy = f"Views are {', '.join(VIEWS)}: {{{VIEWS[0]}: NAME_IN_THE_DATASET}}."
        yield Problem(key, f"{unknown[0]!r} is no view of a model", remedy)
    if len(set(cameras.values())) < len(cameras):
        yield Problem(key, "a camera is named twice", "Give each view a camera of its own.")
