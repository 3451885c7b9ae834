"""From a config to a reward function: a built-in name or `package.module:callable`.

A reward's parameters are its keyword arguments after the first; their annotations are their types.
What a reward returns is checked where it is called.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlarl.config.schema import RewardConfig
from vlarl.errors import ConfigError
from vlarl.rewards.reward import RewardFunction
from vlarl.rewards.sparse_success import sparse_success

REWARDS: dict[str, RewardFunction] = {"sparse_success": sparse_success}
"""Built-in rewards by name."""

_TYPES = (bool, int, float, str, list)


def load_reward(config: RewardConfig) -> RewardFunction:
    """The configured function with its parameters bound.

    Modules are found as usual, and in the current folder.

    Raises:
        ConfigError: if there is no such function, or a parameter is unknown, missing or of another
            type than annotated.
    """
    function = REWARDS.get(config.name) or _imported(config.name)
    parameters = _checked(function, config)
    return functools.partial(function, **parameters) if parameters else function


def _imported(name: str) -> Callable[..., Any]:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        close = difflib.get_close_matches(name, REWARDS, n=1)
        meant = f"Did you mean {close[0]}? " if close else ""
        raise ConfigError(
            f"reward.name = {name!r}: no such reward. {meant}Built in: {', '.join(REWARDS)}; "
            "your own: package.module:callable."
        )
    folder = str(Path.cwd())
    if folder not in sys.path:
        # Last, so that a file here never hides an installed package; it stays, for later imports.
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"reward.name = {name!r}: cannot import {error.name!r}. Start from the folder that "
            f"holds it (this is {folder}), or install it."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        found = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(
            f"reward.name = {name!r}: {module_name} has no callable {attribute!r}. "
            f"It has: {', '.join(found) or 'no functions'}."
        )
    return function


def _checked(function: Callable[..., Any], config: RewardConfig) -> dict[str, Any]:
    """The configured parameters, as the function's annotations want them."""
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    signature = inspect.signature(function).parameters.values()
    accepted = [parameter for parameter in signature if parameter.kind not in variadic][1:]
    known = {parameter.name: parameter for parameter in accepted}
    for name in config.parameters:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"Did you mean {close[0]}? " if close else ""
            raise _problem(config, name, f"no such parameter. {meant}It has: {_names(known)}.")
    for parameter in accepted:
        if parameter.default is parameter.empty and parameter.name not in config.parameters:
            raise ConfigError(
                f"reward.name = {config.name!r} needs the parameter {parameter.name!r}. "
                f"Set reward.parameters.{parameter.name}."
            )
    hints = _hints(function, config) if config.parameters else {}
    return {
        name: _typed(config, name, value, hints.get(name))
        for name, value in config.parameters.items()
    }


def _hints(function: Callable[..., Any], config: RewardConfig) -> dict[str, Any]:
    annotated = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(annotated)
    except NameError as error:
        raise ConfigError(
            f"reward.name = {config.name!r}: its annotations name {error.name!r}, which is not "
            "imported at run time. Import it outside of TYPE_CHECKING."
        ) from error


def _typed(config: RewardConfig, name: str, value: Any, hint: Any) -> Any:
    kind = typing.get_origin(hint) or hint
    if kind not in _TYPES:
        allowed = ", ".join(kind.__name__ for kind in _TYPES)
        raise _problem(config, name, f"annotate it in the function with one of {allowed}.")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _problem(config, name, f"must be {kind.__name__}, not {type(value).__name__}.")
    return value


def _problem(config: RewardConfig, name: str, problem: str) -> ConfigError:
    value = config.parameters[name]
    return ConfigError(f"reward.parameters.{name} = {value!r} of {config.name}: {problem}")


def _names(known: dict[str, Any]) -> str:
    return ", ".join(known) or "none"
