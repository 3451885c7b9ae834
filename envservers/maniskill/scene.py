"""One of ManiSkill's environments, stepped without drawing; and those that wait for a player.

ManiSkill draws every observation. Here its `get_obs` is silent but where a picture is asked for, so
`step` is physics, success and reward alone.

On a processor an environment has one row. On a GPU it has many, which step and are drawn together:
see `batch.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.kept import Kept
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
        rows: side by side, where the GPU does the physics; 0: one, on the processor.
    """

    def __init__(
        self, task: str, robot: Robot, drawing: Drawing, reward_mode: str, rows: int = 0
    ) -> None:
        import mani_skill.envs  # noqa: F401, its import is what registers the tasks

        self.task, self.rows, self._on_gpu = task, rows or 1, rows > 0
        self._robot, self._drawing = robot, drawing
        own = {"robot_uids": robot.uid} if robot.uid else {}
        self._env: Any = gymnasium.make(
            task,
            num_envs=self.rows,
            obs_mode=drawing.obs_mode,
            reward_mode=reward_mode,
            control_mode=robot.control_mode,
            sim_backend="physx_cuda" if rows else "physx_cpu",
            # A GPU, or where there is none the processor.
            render_backend="gpu",
            sensor_configs=dict(drawing.sensors),
            **own,
        ).unwrapped
        self._observe: Callable[[], Any] = self._env.get_obs
        self._env.get_obs = _nothing

    def begin(self, seed: int, options: Mapping[str, Any]) -> dict[str, float]:
        """Start the only row's episode that these decide; returns ManiSkill's info."""
        _, info = self._env.reset(seed=seed, options=dict(options))
        if self._drawing.cells:
            coarsen(self._env.scene, self._drawing.cells)
        return self._scalars(info)[0]

    def step(self, action: NDArray[np.float32]) -> Result:
        """One control step of the only row, `action` [7] in our channels' units."""
        return self.step_all(action[None])[0]

    def step_all(self, actions: NDArray[np.float32]) -> list[Result]:
        """One control step of each row, `actions` [rows, 7]."""
        theirs = np.stack([self._robot.theirs(action, self._on_gpu) for action in actions])
        _, reward, _, _, info = self._env.step(theirs)
        rewards, told = _numpy(reward).reshape(self.rows), self._scalars(info)
        return [Result(float(rewards[row]), told[row]) for row in range(self.rows)]

    def draw(self) -> dict[str, NDArray[np.uint8]]:
        """Our name of a camera -> the only row's picture, as large as ManiSkill draws it."""
        return {camera: pictures[0] for camera, pictures in self.draw_all().items()}

    def draw_all(self) -> dict[str, NDArray[np.uint8]]:
        """Our name of a camera -> `[rows, height, width, 3]`."""
        if self._drawing.show_goal:
            for mark in self._env._hidden_objects:
                mark.show_visual()
            self._env._hidden_objects.clear()
        seen = self._observe()["sensor_data"]
        return {
            ours: _numpy(seen[theirs]["rgb"]).astype(np.uint8)
            for ours, theirs in self._drawing.cameras.items()
        }

    def state(self, row: int = 0) -> NDArray[np.float32]:
        """[8] the hand in the base's frame, see `hand_state`."""
        joints = _numpy(self._env.agent.robot.get_qpos())[row].astype(float)
        return hand_state(*self.poses(row), joints[-2:])

    def poses(self, row: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[7] of the arm's base and [7] of the hand, in the world."""
        arm = self._env.agent.robot
        return _pose(arm.pose, row), _pose(arm.links_map[self._robot.hand].pose, row)

    def pose_of(self, thing: str, row: int = 0) -> NDArray[np.float64]:
        """[7] of an actor in the world, by ManiSkill's name."""
        return _pose(self._env.scene.actors[thing].pose, row)

    def kept(self, rows: Iterable[int] = (0,)) -> dict[int, Kept]:
        """What these rows are now."""
        physics = _numpy(self._env.get_state())
        beside = {name: _numpy(values) for name, values in self._beside().items()}
        return {
            row: Kept(
                np.array(physics[row]),
                {name: np.array(values[row]) for name, values in beside.items()},
            )
            for row in rows
        }

    def put(self, rows: Mapping[int, Kept]) -> None:
        """Make the rows what was kept, of these or others, here or in a scene of the same task."""
        # ManiSkill writes through a mask of the rows, in their order.
        places = sorted(rows)
        # Tensors of where its own are: nothing of ours imports torch.
        like = self._env.get_state()
        physics = like.new_tensor(np.stack([rows[row].physics for row in places]))
        self._env.set_state(physics, like.new_tensor(places).long())
        for name, values in self._beside().items():
            for row in places:
                if name in rows[row].beside:
                    values[row] = values.new_tensor(rows[row].beside[name])

    def close(self) -> None:
        """Free physics and pictures, once the last reference is gone: ManiSkill has cycles."""
        self._env.close()
        del self._env, self._observe

    def _scalars(self, info: Mapping[str, Any]) -> list[dict[str, float]]:
        """Of each row the entries that are one number or one truth."""
        each = {**info, **self._apart(info)}
        columns = {name: _numpy(value) for name, value in each.items()}
        return [
            {
                name: float(column.reshape(-1)[row])
                for name, column in columns.items()
                if column.size == self.rows
            }
            for row in range(self.rows)
        ]

    def _apart(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Each row's distance where ManiSkill has the mean of all (PullCubeTool)."""
        if self.rows == 1 or "cube_distance" not in info:
            return {}
        apart = self._env.cube.pose.p - self._env.agent.robot.get_links()[0].pose.p
        apart[:, 0] -= 0.1 * self._env.arm_reach
        return {"cube_distance": apart.norm(dim=1)}

    def _beside(self) -> dict[str, Any]:
        """Attribute -> tensor of `rows` rows that the task keeps beside the physics.

        Such as whether the ball was reached, or where the socket is.
        """
        found = {}
        for name, value in vars(self._env).items():
            values = getattr(value, "raw_pose", value)
            if hasattr(values, "new_tensor") and values.shape[:1] == (self.rows,):
                found[name] = values
        return found


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


def _pose(of: Any, row: int) -> NDArray[np.float64]:
    """[7] of one row: position, then a quaternion. One pose may stand for all rows."""
    poses = _numpy(of.raw_pose)
    return poses[row if len(poses) > 1 else 0].astype(float)


def _numpy(value: Any) -> NDArray[Any]:
    """What ManiSkill has on whatever device, here."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)
