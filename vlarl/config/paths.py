"""The YAML files: where they live (`configs/` of a checkout, or packaged), and how one is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vlarl.errors import ConfigError


def configs_folder() -> Path:
    """The folder of shipped configs.

    Raises:
        FileNotFoundError: if neither a checkout's nor the packaged folder exists.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = (package.parent / "configs", package / "_configs")
    for folder in candidates:
        if (folder / "embodiments").is_dir():
            return folder
    raise FileNotFoundError(f"no shipped configs: looked in {', '.join(map(str, candidates))}")


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file's mapping as plain values.

    Raises:
        ConfigError: if the file cannot be read as YAML, or holds something else.
    """
    try:
        data = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file}: not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: holds a {type(data).__name__}, not settings `key: value`.")
    return {str(key): value for key, value in data.items()}
