"""One environment of RoboTwin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.plain_simulator import PlainSimulator
from envservers.resize import resized
from envservers.robotwin.robot import CAMERAS, cameras
from envservers.robotwin.scenes import Scenes
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart


class RoboTwinSimulator(PlainSimulator):
    """Implements `envservers.simulator.Simulator`.

    Args:
        scenes: shared by the environments of the process.
        image_size: height of the pictures, in pixels.
        limits: task -> control steps of an episode.
    """

    def __init__(self, scenes: Scenes, image_size: int, limits: Mapping[str, int]) -> None:
        self._scenes, self._limits = scenes, limits
        self._sizes = {camera.name: (camera.height, camera.width) for camera in cameras(image_size)}
        self.task: Any = None
        self._random: Any = None

    def reset(self, start: EpisodeStart) -> str:
        """Begin the episode; see `Simulator.reset`.

        Raises:
            ValueError: for a negative seed, or one of whose scenes none can be played.
        """
        if start.seed < 0:
            raise ValueError(f"seed = {start.seed}: must not be negative")
        self.close()
        with self.own_random():
            self.task, scene = self._scenes.open(start.task, start.seed)
            # Beyond it, actions would do nothing.
            self.task.step_lim = self._limits[start.task]
            words = self._scenes.sentence(start.task, scene)
            self.task.set_instruction(instruction=words)
        return words

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step: the arms move until they are where `action` says."""
        with self.own_random():
            self.task.take_action(action.astype(np.float64), action_type="qpos")
        success = bool(self.task.eval_success)
        return Outcome(float(success), success)

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """All three cameras, drawn now at 320 x 240 and made smaller."""
        with self.own_random():
            seen = self.task.get_obs()["observation"]
        return {
            view: resized(seen[camera]["rgb"], *self._sizes[view])
            for view, camera in CAMERAS.items()
        }

    def state(self) -> NDArray[np.float32]:
        """[14] where the joints were last sent, and the grippers' openings, in an action's order.

        Drive targets, not measured positions: so have the benchmark's datasets it.
        """
        robot = self.task.robot
        both = [*robot.get_left_arm_jointState(), *robot.get_right_arm_jointState()]
        return np.array(both, np.float32)

    def info(self) -> dict[str, float]:
        """Nothing: the benchmark reports success alone."""
        return {}

    def close(self) -> None:
        """Free the scene."""
        if self.task is not None:
            self._scenes.close(self.task)
        self.task, self._random = None, None

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """NumPy's global generator as this episode left it: lamps flicker by it."""
        outside = np.random.get_state()  # noqa: NPY002, the benchmark draws from it
        if self._random is not None:
            np.random.set_state(self._random)  # noqa: NPY002
        try:
            yield
        finally:
            self._random = np.random.get_state()  # noqa: NPY002
            np.random.set_state(outside)  # noqa: NPY002
