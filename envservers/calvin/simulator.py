"""One slot of CALVIN: a table, a chain of tasks, and the oracle that says which is done."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.calvin.repository import Repository
from envservers.calvin.starts import ROBOT, start_of
from envservers.calvin.tasks import SUBTASK_STEPS
from envservers.resize import resized
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart

ACTION_SCALE = np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05])
"""Meters and radians at CALVIN's own relative action of 1."""
CAMERAS = {"ego": "rgb_static", "cam_right_wrist": "rgb_gripper"}
"""View -> CALVIN's camera."""


class CalvinSimulator:
    """Implements `envservers.simulator.Simulator`.

    Args:
        repository: CALVIN's code.
        image_size: of both pictures, in pixels.
    """

    def __init__(self, repository: Repository, image_size: int) -> None:
        self._environment: Any = repository.environment()
        self._cameras = self._environment.cameras
        # Every step would draw all of them.
        self._environment.cameras = []
        self._oracle: Any = repository.oracle()
        self._sentences = repository.sentences()
        self._image_size = image_size
        self._tasks: tuple[str, ...] = ()
        self._done, self._steps = 0, 0
        self._before: Any = None

    def reset(self, start: EpisodeStart) -> str:
        """Set the table; see `docs/suites/calvin.md` for what a seed means."""
        found = start_of(start.task, start.seed)
        self._environment.reset(robot_obs=ROBOT.copy(), scene_obs=found.scene.copy())
        self._tasks, self._done = found.tasks, 0
        return self._begin()

    def _begin(self) -> str:
        """The next task counts from the scene as it is now."""
        self._steps, self._before = 0, self._environment.get_info()
        return self._sentences[self._tasks[self._done]]

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step of a 30th of a second."""
        moves = np.clip(action[:6] / ACTION_SCALE, -1, 1)
        relative = np.array([*moves, 1.0 if action[6] > 0 else -1.0])
        _, _, _, info = self._environment.step(relative)
        self._steps += 1
        task = self._tasks[self._done]
        if not self._oracle.get_task_info_for_set(self._before, info, {task}):
            return Outcome(0.0, False, expired=self._steps >= SUBTASK_STEPS)
        self._done += 1
        if self._done == len(self._tasks):
            return Outcome(1.0, True)
        return Outcome(1.0, False, instruction=self._begin())

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Both cameras, drawn in CALVIN's own sizes."""
        self._environment.cameras = self._cameras
        pictures = self._environment.get_camera_obs()[0]
        self._environment.cameras = []
        size = self._image_size
        return {view: resized(pictures[name], size, size) for view, name in CAMERAS.items()}

    def state(self) -> NDArray[np.float32]:
        """[15] hand's position and Euler angles, gripper's opening, joints, gripper's command."""
        return np.asarray(self._environment.get_state_obs()["robot_obs"], np.float32)

    def info(self) -> dict[str, float]:
        """Tasks of the chain that are done: their mean is the published average length."""
        return {"tasks_done": float(self._done), "task_steps": float(self._steps)}

    def expert_action(self) -> NDArray[np.float32]:
        """Not offered."""
        raise NotImplementedError("suite 'calvin' has no expert: train on CALVIN's demonstrations")

    def snapshot(self) -> bytes:
        """Not offered."""
        raise NotImplementedError("suite 'calvin' makes no snapshots")

    def restore(self, blob: bytes) -> None:
        """Not offered."""
        raise NotImplementedError("suite 'calvin' makes no snapshots")

    def close(self) -> None:
        """End the simulation."""
        self._environment.close()
