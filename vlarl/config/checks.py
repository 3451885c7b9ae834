"""What rules of the config are made of: checks of single keys, named by their dots."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlarl.config.problem import Problem
from vlarl.config.schema import RunConfig


def value_at(config: RunConfig, key: str) -> Any:
    """The value of a dotted key; `key` may lead into a free mapping."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    return value


def choice(config: RunConfig, key: str, allowed: Sequence[str]) -> Iterator[Problem]:
    """One of `allowed`, or the nearest of them is the remedy."""
    value = value_at(config, key)
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, n=1)
        remedy = f"Did you mean {close[0]}?" if close else f"Choose one of: {', '.join(allowed)}."
        yield Problem(key, "no such choice", remedy)


def at_least(config: RunConfig, low: float, keys: Iterable[str]) -> Iterator[Problem]:
    """Numbers of at least `low`."""
    for key in keys:
        if not value_at(config, key) >= low:
            yield Problem(key, f"must be at least {low:g}", f"Try {key}={low:g}.")


def above_zero(config: RunConfig, keys: Iterable[str]) -> Iterator[Problem]:
    """Numbers above zero."""
    for key in keys:
        if not value_at(config, key) > 0:
            default = value_at(RunConfig(), key)
            yield Problem(key, "must be above zero", f"The default is {default:g}.")


def fraction(config: RunConfig, keys: Iterable[str]) -> Iterator[Problem]:
    """Numbers between 0 and 1."""
    for key in keys:
        if not 0 <= value_at(config, key) <= 1:
            default = value_at(RunConfig(), key)
            yield Problem(key, "must lie between 0 and 1", f"The default is {default:g}.")


def without_effect(config: RunConfig, keys: Iterable[str], because: str) -> Iterator[Problem]:
    """Settings that stay at their defaults, because of another."""
    defaults = RunConfig()
    for key in keys:
        default = value_at(defaults, key)
        if value_at(config, key) != default:
            # What a shipped file sets cannot be removed on the command line.
            plain = isinstance(default, (str, int, float))
            back = f" ({key}={default} is the default)" if plain else ""
            remedy = f"Remove it{back} or change the other."
            yield Problem(key, f"has no effect with {because}", remedy)


def sections_without_effect(config: RunConfig, section: str, because: str) -> Iterator[Problem]:
    """The changed setting below `section` that does nothing, named in full."""
    for field in dataclasses.fields(value_at(config, section)):
        key = f"{section}.{field.name}"
        if dataclasses.is_dataclass(value_at(config, key)):
            yield from sections_without_effect(config, key, because)
        else:
            yield from without_effect(config, [key], because)
