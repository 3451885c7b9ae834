"""Whole episodes' motions: ManiSkill's planners', in a scene of their own, or drawn by us.

The planners command joint positions, and plan from the beginning of an episode alone. What is kept
of a solution is where the hand went and what the gripper was told; `expert.py` goes the same way
with the suite's own channels.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.ways import WAYS, Place, Poses, drawn


class Solution(NamedTuple):
    """One of ManiSkill's."""

    module: str
    fits: bool = False
    """Whether what is held has to go into something, to the scene's `goal_pose` along its x."""


SOLUTIONS = {
    "PickCube-v1": Solution("pick_cube"),
    "PushCube-v1": Solution("push_cube"),
    "PullCube-v1": Solution("pull_cube"),
    "StackCube-v1": Solution("stack_cube"),
    "LiftPegUpright-v1": Solution("lift_peg_upright"),
    "PlaceSphere-v1": Solution("place_sphere"),
    "PegInsertionSide-v1": Solution("peg_insertion_side", fits=True),
    "PlugCharger-v1": Solution("plug_charger", fits=True),
}
"""Task -> what solves it. Of the others there is none, or it fails in most episodes itself: they go
`WAYS` of our own."""
_SCENES = 2
"""That a process keeps to plan in."""


class Motion(NamedTuple):
    """A solution, step by step."""

    poses: NDArray[np.float64]
    """[steps, 7] of the hand in the world: position (m), then a quaternion."""
    gripper: NDArray[np.float64]
    """[steps] what it was told: -1 closes, 1 opens."""
    held: tuple[str, ...]
    """[steps] ManiSkill's name of what the fingers held, empty for nothing."""
    objects: dict[str, NDArray[np.float64]]
    """[steps, 7] where everything was that was held at some time."""
    success: bool | None
    """Whether the plan itself, carried out by ManiSkill, ends in success; None: it was not."""
    goal: NDArray[np.float64] | None = None
    """[7] where a thing that has to fit is when it is in; None: nothing has to."""


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
        """The motion of an episode; None where the planners find none, or not all of it."""
        if task in WAYS:
            return self._scene(task).way(WAYS[task], seed)
        name = f"mani_skill.examples.motionplanning.panda.solutions.{SOLUTIONS[task].module}"
        solution = importlib.import_module(name)
        scene = self._scene(task)
        with contextlib.redirect_stdout(io.StringIO()):  # they print what they cannot plan
            result = solution.solve(scene, seed=seed)
        if not isinstance(result, tuple) or not scene.poses:
            return None
        return scene.motion(SOLUTIONS[task].fits)

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
        self._gripper: list[float] = []
        self._held: list[str] = []
        self._objects: list[dict[str, NDArray[np.float64]]] = []

    def reset(self, **settings: Any) -> Any:
        """Forget, and begin."""
        self.poses, self._gripper, self._held, self._objects = [], [], [], []
        return self.env.reset(**settings)

    def step(self, action: Any) -> Any:
        """Go on, and remember."""
        result = self.env.step(action)
        scene: Any = self.env.unwrapped
        movable = {
            name: actor
            for name, actor in scene.scene.actors.items()
            if actor.px_body_type == "dynamic"
        }
        self.poses.append(_pose(scene.agent.tcp))
        self._gripper.append(float(action[-1]))
        held = (name for name, actor in movable.items() if bool(scene.agent.is_grasping(actor)))
        self._held.append(next(held, ""))
        self._objects.append({name: _pose(actor) for name, actor in movable.items()})
        return result

    def way(self, draw: Callable[[Poses], Iterator[Place]], seed: int) -> Motion:
        """Drawn from where things lie at the beginning; carried out by nobody yet."""
        self.reset(seed=seed)
        scene: Any = self.env.unwrapped
        things = {name: _pose(actor) for name, actor in scene.scene.actors.items()}
        hand = _pose(scene.agent.tcp)
        known = {**things, "base": _pose(scene.agent.robot), "hand": hand}
        poses, gripper = drawn(draw(known), hand)
        return Motion(poses, gripper, ("",) * len(poses), {}, success=None)

    def motion(self, fits: bool) -> Motion:
        """All of it."""
        names = set(self._held) - {""}
        objects = {name: np.stack([each[name] for each in self._objects]) for name in names}
        poses, gripper = np.stack(self.poses), np.array(self._gripper)
        scene: Any = self.env.unwrapped
        goal = np.asarray(scene.goal_pose.raw_pose[0], np.float64) if fits else None
        success = bool(scene.evaluate()["success"])
        return Motion(poses, gripper, tuple(self._held), objects, success, goal)


def _pose(of: Any) -> NDArray[np.float64]:
    return np.asarray(of.pose.raw_pose[0], np.float64)
