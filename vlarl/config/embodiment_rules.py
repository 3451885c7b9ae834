"""What an embodiment file may hold: every rule a generator of problems, as in `validate.py`.

    robot_tag: WidowX           how the prompt names the robot
    dual_arm: false             true or false, like the next two
    waist: false
    mobile_base: false
    control_hz: 5.0             above zero
    horizon: 16                 control steps of one chunk, at least 1
    cameras: [ego]              view tags in prompt order; may be left out
    channels:                   1 to 64, in the order of the action vector
      - {name: gripper, unit: "1", kind: gripper, low: 0.0, high: 1.0}
      - {names: [roll, pitch, yaw], unit: rad, kind: rotation_euler, low: -0.3, high: 0.3}

Rules see plain YAML values. A rule may rely on what the rules before it found right, for the first
problem ends the reading.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from vlarl.embodiment import MAX_CHANNELS
from vlarl.types import CHANNEL_KINDS, VIEWS

_FIELDS = {
    "robot_tag": str,
    "dual_arm": bool,
    "waist": bool,
    "mobile_base": bool,
    "control_hz": float,
    "horizon": int,
    "channels": list,
}
_OPTIONAL_FIELDS = {"cameras": list}
_CHANNEL_FIELDS = {"unit": str, "kind": str, "low": float, "high": float}
_CHANNEL_NAMES = {"name": str, "names": list}

_GROUPS = {"rotation_euler": 3, "rotation_axis_angle": 3, "rotation_quaternion": 4}
"""Kinds whose channels mean something only together, and how many make one rotation."""

_SPOKEN = {
    str: ("text", "Quote it if it looks like something else."),
    bool: ("`true` or `false`", "Write it without quotes."),
    float: ("a finite number", "Write it without quotes."),
    int: ("a whole number", "Write it without quotes and without a decimal point."),
    list: ("a list", "Write [A, B] or one `- ` line for each entry."),
}


class Problem(NamedTuple):
    """One thing that is wrong with a file."""

    place: str
    """The field, with its value where it has one."""
    problem: str
    remedy: str


def problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything wrong with the values of one file, the most basic first."""
    for rule in _RULES:
        yield from rule(values)


def channel_names(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all channels, in order."""
    return [name for entry in entries for name in entry.get("names", [entry.get("name")])]


def _at(key: str, value: Any) -> str:
    return f"{key} = {value!r}"


def _choice(place: str, value: str, allowed: Sequence[str], noun: str) -> Iterator[Problem]:
    if value not in allowed:
        close = difflib.get_close_matches(value, allowed, n=1)
        remedy = f"Did you mean {close[0]}?" if close else "Choose one of them."
        yield Problem(place, f"no such {noun}; allowed: {', '.join(allowed)}", remedy)


def _typed(
    values: Mapping[str, Any], required: Mapping[str, type], optional: Mapping[str, type], at: str
) -> Iterator[Problem]:
    """Unknown and missing keys, then values of another type."""
    types = {**required, **optional}
    for key, value in values.items():
        yield from _choice(_at(f"{at}{key}", value), str(key), list(types), "field")
    for key in required:
        if key not in values:
            remedy = f"Add `{key}: ...`; it takes {_SPOKEN[required[key]][0]}."
            yield Problem(f"{at}{key}", "is missing", remedy)
    for key, value in values.items():
        if not _is(value, types[key]):
            wanted, remedy = _SPOKEN[types[key]]
            yield Problem(_at(f"{at}{key}", value), f"must be {wanted}", remedy)


def _is(value: Any, kind: type) -> bool:
    """Whether a YAML value has this type; whole numbers are numbers, true and false are not."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _fields(values: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _typed(values, _FIELDS, _OPTIONAL_FIELDS, "")
    if not values["robot_tag"].strip():
        remedy = "Name the robot as the prompt should, such as WidowX."
        yield Problem(_at("robot_tag", values["robot_tag"]), "is empty", remedy)
    if not values["control_hz"] > 0:
        remedy = "Give the control frequency in Hz, such as 10.0."
        yield Problem(_at("control_hz", values["control_hz"]), "must be above zero", remedy)
    if values["horizon"] < 1:
        remedy = "Give the control steps of one chunk, such as 16."
        yield Problem(_at("horizon", values["horizon"]), "must be at least 1", remedy)


def _cameras(values: Mapping[str, Any]) -> Iterator[Problem]:
    cameras = values.get("cameras", [])
    for index, camera in enumerate(cameras):
        yield from _choice(_at(f"cameras[{index}]", camera), str(camera), VIEWS, "camera")
        if camera in cameras[:index]:
            yield Problem(_at(f"cameras[{index}]", camera), "is named twice", "Name it once.")


def _channels(values: Mapping[str, Any]) -> Iterator[Problem]:
    if not values["channels"]:
        remedy = "Add a `- {name, unit, kind, low, high}` line for each value of an action."
        yield Problem(_at("channels", values["channels"]), "names no channel", remedy)
    for index, entry in enumerate(values["channels"]):
        yield from _channel(f"channels[{index}]", entry)


def _channel(at: str, entry: Any) -> Iterator[Problem]:
    if not isinstance(entry, Mapping):
        remedy = "Write {name: ..., unit: ..., kind: ..., low: ..., high: ...}."
        yield Problem(_at(at, entry), "must be a mapping", remedy)
    yield from _typed(entry, _CHANNEL_FIELDS, _CHANNEL_NAMES, f"{at}.")
    if ("name" in entry) == ("names" in entry):
        remedy = "Give `name` for one channel, or `names` for several that share the rest."
        yield Problem(_at(at, entry), "needs either `name` or `names`", remedy)
    names = channel_names([entry])
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        key = "name" if "name" in entry else "names"
        problem = "must be text that is not empty, for each channel"
        yield Problem(_at(f"{at}.{key}", entry[key]), problem, "Name it as the robot's joint.")
    yield from _choice(_at(f"{at}.kind", entry["kind"]), entry["kind"], CHANNEL_KINDS, "kind")
    if not entry["low"] < entry["high"]:
        problem = f"must be below high = {entry['high']!r}"
        remedy = "Give the least and the greatest value that the robot accepts."
        yield Problem(_at(f"{at}.low", entry["low"]), problem, remedy)


def _layout(values: Mapping[str, Any]) -> Iterator[Problem]:
    """What the channels must be together."""
    names = channel_names(values["channels"])
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(_at("channels", name), "two channels have this name", "Rename one.")
    if len(names) > MAX_CHANNELS:
        remedy = "Leave out what the policy need not command, or split the robot into two files."
        problem = f"an action has at most {MAX_CHANNELS} channels"
        yield Problem(f"channels = {len(names)} of them", problem, remedy)
    kinds = [entry["kind"] for entry in values["channels"] for _ in channel_names([entry])]
    for kind, run in groupby(zip(kinds, names, strict=True), key=lambda pair: pair[0]):
        group = [name for _, name in run]
        size = _GROUPS.get(kind, 1)
        if len(group) % size:
            yield Problem(
                _at("channels", group),
                f"{len(group)} channels of kind {kind} in a row, which come in groups of {size}",
                "Complete the group; an angle that stands alone is a delta_rotation.",
            )


def _navigation(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Waypoints have a prompt of their own, with no place for arms."""
    kinds = {entry["kind"] for entry in values["channels"]}
    if "waypoint" not in kinds:
        return
    if len(kinds) > 1:
        others = ", ".join(sorted(kinds - {"waypoint"}))
        remedy = "Put navigation and manipulation into two files."
        yield Problem("channels", f"waypoint channels stand beside kinds {others}", remedy)
    for key in ("dual_arm", "waist"):
        if values[key]:
            problem = "has no effect where all channels are waypoints"
            yield Problem(_at(key, values[key]), problem, f"Set {key}: false.")


_RULES: tuple[Callable[[Mapping[str, Any]], Iterator[Problem]], ...] = (
    _fields,
    _cameras,
    _channels,
    _layout,
    _navigation,
)
