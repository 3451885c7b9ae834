"""ManiSkill's motion planners: a whole episode's motion, solved in a scene of their own.

They command joint positions, and plan from the beginning of an episode alone. What is kept of a
solution is where the hand went and what the gripper was told; `expert.py` goes the same way with
the suite's own channels.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections import OrderedDict
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

SOLUTIONS = {
    "PickCube-v1": "pick_cube",
    "PushCube-v1": "push_cube",
    "PullCube-v1": "pull_cube",
    "StackCube-v1": "stack_cube",
    "LiftPegUpright-v1": "lift_peg_upright",
    "PlaceSphere-v1": "place_sphere",
}
"""Task -> module of ManiSkill's that solves it. Solutions of `PullCubeTool`, `StackPyramid`,
`PegInsertionSide` and `PlugCharger` are left out: at the pace and the precision with which the
suite's channels move the hand, things slip or do not fit."""
_SCENES = 2
"""That a process keeps to plan in."""


class Motion(NamedTuple):
    """A solution, step by step."""

    poses: NDArray[np.float64]
    """[steps, 7] of the hand in the world: position (m), then a quaternion."""
    gripper: NDArray[np.float64]
    """[steps] what it was told: -1 closes, 1 opens."""


class Planner:
    """Solves episodes.

    Args:
        robot_uid: ManiSkill's name of the robot, the same as in the scene that is played: with
            another the same seed is another scene.
    """

    def __init__(self, robot_uid: str) -> None:
        self._robot_uid = robot_uid
        self._scenes: OrderedDict[str, _Recorder] = OrderedDict()

    def solve(self, task: str, seed: int) -> Motion | None:
        """The motion of an episode; None where the planners find none, or not all of it.

        Raises:
            NotImplementedError: for any other task.
        """
        if task not in SOLUTIONS:
            raise NotImplementedError(f"{task} has no expert")
        name = f"mani_skill.examples.motionplanning.panda.solutions.{SOLUTIONS[task]}"
        solution = importlib.import_module(name)
        scene = self._scene(task)
        with contextlib.redirect_stdout(io.StringIO()):  # they print what they cannot plan
            result = solution.solve(scene, seed=seed)
        if not isinstance(result, tuple) or not scene.poses:
            return None
        return Motion(np.stack(scene.poses), np.array(scene.gripper))

    def close(self) -> None:
        """Close the scenes."""
        while self._scenes:
            self._scenes.popitem()[1].close()

    def _scene(self, task: str) -> _Recorder:
        if task not in self._scenes:
            while len(self._scenes) >= _SCENES:
                self._scenes.popitem(last=False)[1].close()
            self._scenes[task] = _Recorder(task, self._robot_uid)
        self._scenes.move_to_end(task)
        return self._scenes[task]


class _Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A scene without pictures that remembers where the hand was."""

    def __init__(self, task: str, robot_uid: str) -> None:
        env = gymnasium.make(
            task,
            num_envs=1,
            obs_mode="none",
            reward_mode="none",
            control_mode="pd_joint_pos",
            sim_backend="physx_cpu",
            render_backend="gpu",
            robot_uids=robot_uid,
        )
        super().__init__(env.unwrapped)
        self.poses: list[NDArray[np.float64]] = []
        self.gripper: list[float] = []

    def reset(self, **settings: Any) -> Any:
        """Forget, and begin."""
        self.poses, self.gripper = [], []
        return self.env.reset(**settings)

    def step(self, action: Any) -> Any:
        """Go on, and remember."""
        result = self.env.step(action)
        hand: Any = self.env.unwrapped
        self.poses.append(np.asarray(hand.agent.tcp.pose.raw_pose[0], np.float64))
        self.gripper.append(float(action[-1]))
        return result
