"""Reads `configs/models/NAME.yaml`: the sizes of a model. Numbers only; no torch, no weights.

A user's own size is a file of their own: wherever a preset's name is asked for, its path will do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from vlarl.config.paths import configs_folder, read_yaml
from vlarl.errors import ConfigError

_KEYS = ("base", "tokenizer", "backbone", "expert", "value")


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in (configs_folder() / "models").glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Where the preset of this name is.

    Raises:
        ConfigError: for a name that is neither a shipped preset's nor a YAML file's.
    """
    if name in preset_names():
        return configs_folder() / "models" / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"model preset {name}: no such file")
        return path
    close = difflib.get_close_matches(name, preset_names(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ConfigError(
        f"unknown model preset {name!r}; allowed: {', '.join(preset_names())}, or the path of a "
        f"YAML file.{hint}"
    )


def read_preset(name: str) -> dict[str, Any]:
    """The file's values, over those of its `base`.

    Raises:
        ConfigError: for an unknown name, or a file that is no mapping of known keys.
    """
    values, where = read_yaml(preset_path(name)), f"model preset {name}"
    refuse_unknown(values, _KEYS, where)
    base = values.pop("base", None)
    if base is None:
        return values
    if base == name:
        raise ConfigError(f"{where}: base is the preset itself")
    return cast(
        "dict[str, Any]", OmegaConf.to_container(OmegaConf.merge(read_preset(base), values))
    )


def refuse_unknown(values: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Raises ConfigError for the first of `values` that is not `known`."""
    allowed = sorted(known)
    for key in values:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(allowed)}."
            raise ConfigError(f"{where}: unknown key {key!r}. {hint}")
