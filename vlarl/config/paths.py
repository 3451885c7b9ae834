"""Where the YAML files live: `configs/` of a checkout, or the copy packaged with the library."""

from __future__ import annotations

from pathlib import Path


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
