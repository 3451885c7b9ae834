"""One slot of SimplerEnv: the environment of the task that it plays, made anew for another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.held_out import published_start
from envservers.resize import resized
from envservers.simpler.rotation import axis_times_angle
from envservers.simpler.tasks import GRID, ROBOTS, SPAWN_X, SPAWN_Y, TASKS, Task
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart


class SimplerSimulator:
    """Implements `envservers.simulator.Simulator`.

    Args:
        image_size: of the picture, in pixels.
        tasks: how many the suite has.
    """

    def __init__(self, image_size: int, tasks: int) -> None:
        self._image_size, self._tasks = image_size, tasks
        self._environment: Any = None
        self._task = next(iter(TASKS.values()))
        self._instruction, self._steps = "", 0

    def prepare(self, name: str) -> None:
        """Have the environment of this task."""
        if self._environment is not None and self._task.name == name:
            return
        import simpler_env

        self.close()
        # Its wrappers draw at every step and count steps; both are done here.
        self._environment = simpler_env.make(name).unwrapped
        self._task = TASKS[name]

    def reset(self, start: EpisodeStart) -> str:
        """Begin an episode; see `docs/suites/simpler-env.md` for what its seed means."""
        self.prepare(start.task)
        official = published_start(start.seed, self._tasks, self._task.published)
        held_out = official is not None
        number = start.seed if official is None else official
        if self._task.spread and not held_out:
            self._reset_elsewhere(number)
        else:
            options = _options(self._task, number) if held_out else {}
            self._undrawn("reset", seed=number, options=options)
        self._instruction = self._environment.get_language_instruction()
        self._steps = 0
        return self._instruction

    def _reset_elsewhere(self, seed: int) -> None:
        """Put the objects near one of the published starts, never where one has them."""
        environment, random = self._environment, np.random.default_rng(seed)
        places, turns = environment._xy_configs, environment._quat_configs
        place = np.array(places[random.integers(len(places))], np.float64)
        place += random.uniform(-self._task.spread, self._task.spread, place.shape)
        try:
            environment._xy_configs = [place]
            environment._quat_configs = [turns[random.integers(len(turns))]]
            self._undrawn("reset", seed=seed, options=_options(self._task, 0))
        finally:
            environment._xy_configs, environment._quat_configs = places, turns

    def _undrawn(self, call: str, *arguments: Any, **options: Any) -> Any:
        """Call the environment without pictures, which cost most of a step."""
        environment = self._environment
        drawn, environment._obs_mode = environment._obs_mode, "none"
        try:
            return getattr(environment, call)(*arguments, **options)
        finally:
            environment._obs_mode = drawn

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step."""
        x, y, z, roll, pitch, yaw, gripper = (float(value) for value in action)
        if self._task.robot == "widowx":
            # Ours is 0 closed, 1 open; theirs is a command, -1 or 1.
            gripper = 1.0 if gripper > 0.5 else -1.0
        turn = axis_times_angle(roll, pitch, yaw)
        _, reward, success, _, _ = self._undrawn("step", np.array([x, y, z, *turn, gripper]))
        self._steps += 1
        words = self._environment.get_language_instruction()
        changed = words if words != self._instruction else ""
        self._instruction = words
        late = self._steps >= self._task.steps
        return Outcome(float(reward), bool(success), expired=late, instruction=changed)

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """The robot's camera, on the background of the real picture."""
        camera = ROBOTS[self._task.robot].camera
        color = self._environment.get_obs()["image"][camera]["Color"][..., :3]
        picture = np.clip(color * 255, 0, 255).astype(np.uint8)
        return {"ego": resized(picture, self._image_size, self._image_size)}

    def state(self) -> NDArray[np.float32]:
        """[7] the tool's place and turn (w, x, y, z) from the robot's base."""
        pose = self._environment.agent.robot.pose.inv() * self._environment.tcp.pose
        return np.concatenate([pose.p, pose.q]).astype(np.float32)

    def info(self) -> dict[str, float]:
        """Control steps of the episode."""
        return {"task_steps": float(self._steps)}

    def expert_action(self) -> NDArray[np.float32]:
        """Not offered."""
        raise NotImplementedError("suite 'simpler-env' has no expert")

    def snapshot(self) -> bytes:
        """Not offered."""
        raise NotImplementedError("suite 'simpler-env' makes no snapshots")

    def restore(self, blob: bytes) -> None:
        """Not offered."""
        raise NotImplementedError("suite 'simpler-env' makes no snapshots")

    def close(self) -> None:
        """Free the scene."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None


def _options(task: Task, number: int) -> dict[str, Any]:
    """What a published start is called in the environment's `reset`."""
    if task.starts == "episode":
        return {"obj_init_options": {"episode_id": number}}
    if task.starts == "grid":
        row, column = divmod(number, GRID)
        place = [np.linspace(*SPAWN_X, GRID)[row], np.linspace(*SPAWN_Y, GRID)[column]]
        return {"obj_init_options": {"init_xy": np.array(place)}}
    return {}
