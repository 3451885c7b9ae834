"""What a command is, and what it is called with."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlarl.errors import UserError

if TYPE_CHECKING:
    from vlarl.config.schema import RunConfig


@dataclass(frozen=True)
class Invocation:
    """`vlarl COMMAND ARGUMENTS... key=value ...` taken apart."""

    arguments: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """key -> value as typed, in the order of the command line."""

    @property
    def overrides(self) -> list[str]:
        """The settings as `key=value`, as the config loader takes them."""
        return [f"{key}={value}" for key, value in self.settings.items()]

    def overrides_with(self, aliases: Mapping[str, str]) -> list[str]:
        """The same, short names replaced by dotted keys; `tasks=a,b` becomes a list."""
        found = []
        for key, value in self.settings.items():
            if key == "tasks" and not value.startswith("["):
                value = f"[{value}]"
            found.append(f"{aliases.get(key, key)}={value}")
        return found


@dataclass(frozen=True)
class Command:
    """One command of `vlarl`."""

    usage: str
    """What follows `vlarl`."""
    details: str
    """What it does and takes, for `--help`."""
    example: str
    run: Callable[[Invocation], dict[str, Any]]
    """Does the work, prints for people, returns what `--json` prints.

    Raises:
        UserError: for a mistake of the user's.
    """
    arguments: tuple[str, ...] = ()
    """Names of the required arguments."""
    optional: tuple[str, ...] = ()
    """Names of the arguments after them that may be left out."""
    several: bool = False
    """Whether the last of its arguments may be given more than once."""
    settings: Mapping[str, str] | None = None
    """key -> help of the settings it takes; None: keys of the config schema too."""
    subcommand: Callable[[str], Command] | None = None
    """Name -> the command that takes the rest of the line, where the first argument names one."""

    def check(self, name: str, invocation: Invocation) -> None:
        """Refuse missing or surplus arguments and unknown settings."""
        given, allowed = len(invocation.arguments), len(self.arguments) + len(self.optional)
        if given < len(self.arguments):
            raise UserError(f"{name} needs {self.arguments[given]}. Usage: vlarl {self.usage}")
        if given > allowed and not self.several:
            surplus = invocation.arguments[allowed]
            raise UserError(
                f"{name}: {surplus!r} is one argument too many (settings are `key=value`). "
                f"Usage: vlarl {self.usage}"
            )
        if self.settings is None:
            return
        for key in invocation.settings:
            if key not in self.settings:
                raise UserError(f"{name}: {key}: no such setting. {hint(key, self.settings)}")


def stage_config(invocation: Invocation, stage: str) -> RunConfig:
    """The config of a training command, which must be of its stage.

    Raises:
        ConfigError: for a config that is wrong, or another stage's.
    """
    from vlarl.config.load import load_config
    from vlarl.errors import ConfigError

    config = load_config(invocation.arguments[0], invocation.overrides)
    if config.stage != stage:
        raise ConfigError(
            f"{invocation.arguments[0]}: stage = {config.stage!r}: not a config for "
            f"`vlarl {stage}`. Try: vlarl {config.stage} {invocation.arguments[0]}"
        )
    return config


def hint(value: str, allowed: Mapping[str, Any] | tuple[str, ...]) -> str:
    """`Did you mean ...?` for a near miss, else what is allowed."""
    close = difflib.get_close_matches(value, list(allowed), n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return f"It takes: {', '.join(allowed)}." if allowed else "It takes none."


def whole_number(settings: Mapping[str, str], key: str, default: int, least: int = 1) -> int:
    """A setting that must be a whole number of at least `least`."""
    text = settings.get(key, str(default))
    if not text.lstrip("-").isdigit() or int(text) < least:
        raise UserError(f"{key} = {text!r}: must be a whole number of at least {least}.")
    return int(text)


def needed(invocation: Invocation, name: str, key: str, what: str) -> str:
    """A setting that command `name` cannot do without.

    Raises:
        UserError: if it is missing or empty.
    """
    value = invocation.settings.get(key, "")
    if not value:
        raise UserError(f"{name} needs {key}={what}.")
    return value


def one_of(settings: Mapping[str, str], key: str, default: str, allowed: Sequence[str]) -> str:
    """A setting that must be one of some words.

    Raises:
        UserError: for another one.
    """
    text = settings.get(key, default)
    if text not in allowed:
        raise UserError(f"{key} = {text!r} is unknown. {hint(text, tuple(allowed))}")
    return text


def chosen(text: str, allowed: Sequence[str], what: str) -> tuple[str, ...]:
    """Names apart by commas, in the allowed ones' order; all of them if none is given.

    Raises:
        UserError: for another name.
    """
    given = [name for name in text.split(",") if name] or allowed
    for name in given:
        if name not in allowed:
            raise UserError(f"{what} {name!r} is unknown. {hint(name, tuple(allowed))}")
    return tuple(name for name in allowed if name in given)
