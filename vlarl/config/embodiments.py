"""Reads embodiments from YAML. Not for env servers: those get names, never files.

The shipped ones are `configs/embodiments/<name>.yaml`; a robot of one's own is a file anywhere,
given by its path. `embodiment_rules.py` says what such a file may hold.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from vlarl.config.embodiment_rules import problems
from vlarl.config.paths import configs_folder, read_yaml
from vlarl.embodiment import Embodiment, is_embodiment_file
from vlarl.errors import ConfigError
from vlarl.types import Channel


def embodiment_names() -> list[str]:
    """Names of the shipped embodiments."""
    return sorted(path.stem for path in (configs_folder() / "embodiments").glob("*.yaml"))


def load_embodiment(reference: str) -> Embodiment:
    """The embodiment of this name, or of this YAML file; a file's name without suffix names it.

    Raises:
        ConfigError: for an unknown name (listing the allowed ones), a missing file, or one that is
            wrong (naming file, field, value, what is allowed and the remedy).
    """
    path = _file_of(reference)
    values = read_yaml(path)
    for place, problem, remedy in problems(values):
        raise ConfigError(f"{path}: {place}: {problem}. {remedy}")
    return _embodiment(path.stem, values)


def _file_of(reference: str) -> Path:
    if is_embodiment_file(reference):
        path = Path(reference)
        if not path.is_file():
            raise ConfigError(f"{path}: no such embodiment file. Name an existing YAML file.")
        return path
    names = embodiment_names()
    if reference not in names:
        close = difflib.get_close_matches(reference, names, n=1, cutoff=0.4)
        remedy = f"Did you mean {close[0]}?" if close else "For a robot of your own, give its file."
        raise ConfigError(
            f"unknown embodiment {reference!r}; allowed: {', '.join(names)}, "
            f"or the path of a YAML file. {remedy}"
        )
    return configs_folder() / "embodiments" / f"{reference}.yaml"


def _embodiment(name: str, values: dict[str, Any]) -> Embodiment:
    """From checked values."""
    return Embodiment(
        name=name,
        robot_tag=values["robot_tag"],
        dual_arm=values["dual_arm"],
        waist=values["waist"],
        mobile_base=values["mobile_base"],
        control_hz=float(values["control_hz"]),
        horizon=values["horizon"],
        channels=tuple(
            Channel(
                channel, entry["unit"], entry["kind"], float(entry["low"]), float(entry["high"])
            )
            for entry in values["channels"]
            for channel in entry.get("names", [entry.get("name")])
        ),
        cameras=tuple(values.get("cameras", ())),
    )
