"""One of ManiSkill's environments, stepped without drawing; and those that wait for a player.

ManiSkill draws every observation. Here its `get_obs` is silent but where a picture is asked for, so
`step` is physics, success and reward alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.meshes import coarsen
from envservers.maniskill.robots import Robot, hand_state


@dataclass(frozen=True)
class Drawing:
    """What is drawn, and how."""

    cameras: Mapping[str, str]
    """Ours -> ManiSkill's."""
    sensors: Mapping[str, Any]
    """ManiSkill's `sensor_configs`."""
    obs_mode: str = "rgb"
    show_goal: bool = True
    """Whether the marks of goals that ManiSkill hides from its cameras are drawn."""
    cells: int = 0
    """Of the grid for coarser meshes (`meshes.py`); 0: as they are."""


class Result(NamedTuple):
    """Of one control step."""

    reward: float
    info: dict[str, float]
    """ManiSkill's, its scalars alone."""


class Scene:
    """A task's environment.

    Args:
        task: ManiSkill's name.
        robot: in it.
        drawing: of its cameras.
        reward_mode: ManiSkill's.
    """

    def __init__(self, task: str, robot: Robot, drawing: Drawing, reward_mode: str) -> None:
        import mani_skill.envs  # noqa: F401, its import is what registers the tasks

        self.task = task
        self._robot, self._drawing = robot, drawing
        own = {"robot_uids": robot.uid} if robot.uid else {}
        self._env: Any = gymnasium.make(
            task,
            num_envs=1,
            obs_mode=drawing.obs_mode,
            reward_mode=reward_mode,
            control_mode=robot.control_mode,
            sim_backend="physx_cpu",
            # A GPU, or where there is none the processor.
            render_backend="gpu",
            sensor_configs=dict(drawing.sensors),
            **own,
        ).unwrapped
        self._observe: Callable[[], Any] = self._env.get_obs
        self._env.get_obs = _nothing

    def begin(self, seed: int, options: Mapping[str, Any]) -> dict[str, float]:
        """Start the episode that these decide; returns ManiSkill's info."""
        _, info = self._env.reset(seed=seed, options=dict(options))
        if self._drawing.cells:
            coarsen(self._env.scene, self._drawing.cells)
        return _scalars(info)

    def step(self, action: NDArray[np.float32]) -> Result:
        """One control step, `action` [7] in our channels' units."""
        _, reward, _, _, info = self._env.step(self._robot.theirs(action))
        return Result(float(reward), _scalars(info))

    def draw(self) -> dict[str, NDArray[np.uint8]]:
        """Our name of a camera -> its picture, as large as ManiSkill draws it."""
        if self._drawing.show_goal:
            for mark in self._env._hidden_objects:
                mark.show_visual()
            self._env._hidden_objects.clear()
        seen = self._observe()["sensor_data"]
        return {
            ours: np.asarray(seen[theirs]["rgb"][0], np.uint8)
            for ours, theirs in self._drawing.cameras.items()
        }

    def state(self) -> NDArray[np.float32]:
        """[8] the hand in the base's frame, see `hand_state`."""
        joints = np.asarray(self._env.agent.robot.get_qpos()[0], np.float64)
        return hand_state(*self.poses(), joints[-2:])

    def poses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[7] of the arm's base and [7] of the hand, in the world."""
        arm = self._env.agent.robot
        hand = arm.links_map[self._robot.hand].pose
        return np.asarray(arm.pose.raw_pose[0], float), np.asarray(hand.raw_pose[0], float)

    def pose_of(self, thing: str) -> NDArray[np.float64]:
        """[7] of an actor in the world, by ManiSkill's name."""
        return np.asarray(self._env.scene.actors[thing].pose.raw_pose[0], float)

    def close(self) -> None:
        """Free physics and pictures."""
        self._env.close()


class Scenes:
    """Scenes in nobody's hands; the one that waited longest goes when there are too many.

    Args:
        limit: that wait at a time.
        make: a task's.
    """

    def __init__(self, limit: int, make: Callable[[str], Scene]) -> None:
        self._limit, self._make = limit, make
        self._waiting: OrderedDict[int, Scene] = OrderedDict()

    def take(self, task: str) -> Scene:
        """One of the task, built if none waits."""
        for key, scene in self._waiting.items():
            if scene.task == task:
                return self._waiting.pop(key)
        return self._make(task)

    def give(self, scene: Scene) -> None:
        """Let it wait for the next that plays its task."""
        self._waiting[id(scene)] = scene
        while len(self._waiting) > self._limit:
            self._waiting.popitem(last=False)[1].close()

    def close(self) -> None:
        """Close those that wait."""
        while self._waiting:
            self._waiting.popitem()[1].close()


def _nothing(info: Any = None, unflattened: bool = False) -> dict[str, Any]:
    """In place of ManiSkill's `get_obs` while nobody looks."""
    return {}


def _scalars(info: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are one number or one truth."""
    found = {}
    for name, value in info.items():
        array = np.asarray(value)
        if array.size == 1:
            found[name] = float(array.reshape(()))
    return found
