"""Reads `configs/embodiments/<name>.yaml`. Not for env servers: those get names, never files."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import OmegaConf

from vlarl.config.paths import configs_folder
from vlarl.embodiment import Embodiment
from vlarl.errors import ConfigError


def embodiment_names() -> list[str]:
    """Names that `load_embodiment` accepts."""
    return sorted(path.stem for path in (configs_folder() / "embodiments").glob("*.yaml"))


def load_embodiment(name: str) -> Embodiment:
    """The shipped embodiment of this name.

    Raises:
        ConfigError: for an unknown name (listing the allowed ones) or an ill-formed file.
    """
    path = configs_folder() / "embodiments" / f"{name}.yaml"
    if name not in embodiment_names():
        raise ConfigError(f"unknown embodiment {name!r}; allowed: {', '.join(embodiment_names())}")
    values = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(path)))
    try:
        return Embodiment.from_dict({"name": name, **values})
    except ValueError as error:
        raise ConfigError(f"{path.name}: {error}") from error
