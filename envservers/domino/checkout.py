"""DOMINO's program: a checkout of its repository, which no package index has.

It expects to be run from its own folder, and to find its modules there.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envservers.robotwin.runtime import ROBOT, complete

CONFIGS = {"clean": "demo_clean_dynamic", "random": "demo_random_dynamic"}
"""Surroundings -> DOMINO's name of its configuration."""
_MODULES = (".", "description/utils", "script")


class CheckoutRuntime:
    """Implements `envservers.robotwin.runtime.Runtime`.

    Changes the process's folder to the checkout, whose code opens its files from there.

    Args:
        folder: the checkout.
        surroundings: of `CONFIGS`.
        level: of the motion, 1 to 3; 0: as the configuration says.
        wording: `seen` or `unseen`: which of the benchmark's sentences.
    """

    def __init__(self, folder: Path, surroundings: str, level: int, wording: str) -> None:
        self._folder = folder.resolve()
        os.chdir(self._folder)
        for part in _MODULES:
            path = str(self._folder / part)
            if path not in sys.path:
                sys.path.insert(0, path)
        self._config, self._level, self._wording = CONFIGS[surroundings], level, wording

    def new_task(self, name: str) -> Any:
        """See `Runtime`."""
        return getattr(importlib.import_module(f"envs.{name}"), name)()

    def arguments(self, name: str) -> dict[str, Any]:
        """See `Runtime`; with `use_dynamic`, whatever the configuration says."""
        found = self._yaml(self._config)
        found["use_dynamic"] = True
        if self._level:
            found["dynamic_level"] = self._level
        robot = self._folder / self._yaml("_embodiment_config")[ROBOT]["file_path"]
        camera = self._yaml("_camera_config")[found["camera"]["head_camera_type"]]
        return complete(found, name, robot, camera)

    def sentences(self, name: str, info: Mapping[str, str]) -> list[str]:
        """See `Runtime`."""
        module = importlib.import_module("generate_episode_instructions")
        found: list[str] = module.generate_episode_descriptions(name, [info], 1)[0][self._wording]
        return found

    def kept(self, task: Any) -> Any:
        """How the object moved while the expert played: it will move so again."""
        return getattr(task, "_saved_dynamic_motion_info", None)

    def begin(self, task: Any, kept: Any) -> bool:
        """Set the object in motion; whether its way leads nowhere that it may not be."""
        if kept is not None:
            task._saved_dynamic_motion_info = kept
        return bool(task.init_dynamic_motion_for_eval())

    def end(self, task: Any) -> None:
        """See `Runtime`."""
        task.close_env()
        task.release_episode_resources()

    def metrics(self, task: Any, name: str) -> Any:
        """The benchmark's own bookkeeper of an episode, begun and told to the task."""
        tracker = importlib.import_module("eval_metrics").EvalMetricsTracker(
            task, self.arguments(name)
        )
        tracker.on_episode_start()
        # The task reports each of its control steps to it.
        task._metrics_tracker = tracker
        return tracker

    def _yaml(self, name: str) -> dict[str, Any]:
        import yaml

        found: dict[str, Any] = yaml.safe_load(
            (self._folder / "task_config" / f"{name}.yml").read_text()
        )
        return found
