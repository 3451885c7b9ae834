"""Where RoboTwin's program comes from: the package `robotwin`, or (DOMINO) a checkout."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

ROBOT = "aloha-agilex"
CONFIGS = {"easy": "demo_clean", "hard": "demo_randomized"}
"""Difficulty -> RoboTwin's name of its configuration."""


class Runtime(Protocol):
    """What differs between the two."""

    def new_task(self, name: str) -> Any:
        """A task's object, without a scene."""
        ...

    def arguments(self, name: str) -> dict[str, Any]:
        """Keyword arguments of its `setup_demo`, but for the seed."""
        ...

    def sentences(self, name: str, info: Mapping[str, str]) -> list[str]:
        """What a policy may be told of a scene; draws from Python's global generator."""
        ...

    def kept(self, task: Any) -> Any:
        """What the expert's run leaves behind that the episode needs."""
        ...

    def begin(self, task: Any, kept: Any) -> bool:
        """Make a scene that was just set up ready to be played; whether it can be."""
        ...

    def end(self, task: Any) -> None:
        """Free a scene."""
        ...


class PackageRuntime:
    """Of `rlinf-robotwin-runtime`.

    Args:
        assets: the folder that `robotwin-download-assets` made.
        difficulty: of `CONFIGS`.
        planner: the expert's: `mplib` or `curobo`.
        wording: `seen` or `unseen`: which of the benchmark's sentences.
    """

    def __init__(self, assets: str, difficulty: str, planner: str, wording: str) -> None:
        from robotwin.assets import validate_root

        self._root = Path(validate_root(assets)["root"])
        # Tasks find their objects by it.
        os.environ["ASSETS_PATH"] = str(self._root)
        self._config, self._planner, self._wording = CONFIGS[difficulty], planner, wording

    def new_task(self, name: str) -> Any:
        """See `Runtime`."""
        return getattr(importlib.import_module(f"robotwin.envs.{name}"), name)()

    def arguments(self, name: str) -> dict[str, Any]:
        """See `Runtime`."""
        from robotwin.config import load_task_config

        found: dict[str, Any] = load_task_config(self._config)
        folder = load_task_config("_embodiment_config")[ROBOT]["file_path"]
        robot = self._root / folder
        camera = load_task_config("_camera_config")[found["camera"]["head_camera_type"]]
        return complete(found, name, robot, camera) | {"planner_backend": self._planner}

    def sentences(self, name: str, info: Mapping[str, str]) -> list[str]:
        """See `Runtime`."""
        from robotwin.description import generate_episode_descriptions

        found: list[str] = generate_episode_descriptions(name, [info], 1)[0][self._wording]
        return found

    def kept(self, task: Any) -> Any:
        """Nothing."""
        return None

    def begin(self, task: Any, kept: Any) -> bool:
        """It is."""
        return True

    def end(self, task: Any) -> None:
        """See `Runtime`."""
        task.close_env()


def complete(
    config: dict[str, Any], name: str, robot: Path, camera: Mapping[str, int]
) -> dict[str, Any]:
    """`setup_demo`'s arguments of a task's configuration, as the benchmark's own evaluation has it.

    Args:
        config: of `demo_*.yml`.
        name: of the task.
        robot: the folder of both arms' description.
        camera: width and height of the head camera.
    """
    import yaml

    description = yaml.safe_load((robot / "config.yml").read_text())
    return {
        **config,
        "task_name": name,
        "embodiment_name": ROBOT,
        "head_camera_h": camera["h"],
        "head_camera_w": camera["w"],
        "left_robot_file": str(robot),
        "right_robot_file": str(robot),
        "left_embodiment_config": description,
        "right_embodiment_config": description,
        "dual_arm_embodied": True,
        # Textures and limits of the evaluation, not of the collection of data.
        "eval_mode": True,
        "eval_video_log": False,
        "render_freq": 0,
    }
