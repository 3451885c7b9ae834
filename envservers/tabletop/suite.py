"""The tabletop suite: many arms, each over its own table, stepped and drawn in batches.

Composes the model (`scene.py`), the draw of an episode (`sampling.py`), the arm's control
(`control.py`), the cameras (`renderer.py`) and the goals (`tasks.py`); owns the episodes' books.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envservers.raycaster import project
from envservers.requests import checked_chunk, checked_slots, checked_task
from envservers.snapshots import packed, unpack
from envservers.tabletop.control import ACTION_HIGH, ACTION_LOW, ArmControl, turned, yaw_of
from envservers.tabletop.renderer import CAMERAS, FIELD_OF_VIEW, Renderer
from envservers.tabletop.sampling import geom_color_keys, sample_scene
from envservers.tabletop.scene import (
    FINGER_OPEN,
    FIXED,
    HALF_HEIGHT,
    MOVABLE,
    OBJECTS,
    arm_configuration,
    build_model,
)
from envservers.tabletop.tasks import achieved, find_tasks, phrase
from vlarl.types import CameraSpec, Channel, EnvSpec, EpisodeStart, TimeStep

EMBODIMENTS = {"world": "tabletop_arm", "base": "tabletop_arm_turned"}
"""Frame in which motions are commanded -> embodiment."""
BASE_YAW = np.pi / 2
"""Of the base that motions are commanded in with `frame: base`."""
CONTROL_HZ = 5.0
MAX_STEPS = 48
"""About twice the 95th percentile of the noise-free expert's episodes: room for one retry."""
HOLD_STEPS = 2
"""Consecutive control steps for which a goal must hold to count."""
STATE_DIM = 11
_NEVER, _RUNNING, _ENDED = 0, 1, 2
_CHANNELS = (
    ("delta_x", "m", "delta_position"),
    ("delta_y", "m", "delta_position"),
    ("delta_z", "m", "delta_position"),
    ("delta_yaw", "rad", "delta_rotation"),
    ("gripper", "1", "gripper"),
)


class UnstableSimulationError(RuntimeError):
    """The physics diverged or overflowed; names the environments and MuJoCo's warning."""


class TabletopSuite:
    """`num_envs` tabletop environments; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: number of slots.
        image_size: width and height of both cameras' images, in pixels.
        threads: worker threads of the physics and the renderer.
        tasks: names of the tasks that episodes may have (default: all); one column each in
            `TimeStep.task_success`.
        max_steps: control steps after which an episode is truncated.
        terminate_on_success: whether reaching the goal ends the episode, and the chunk.
        frame: of commanded motions: `world`, or `base`, that of a base mounted turned by a quarter
            (`BASE_YAW`): another robot to a policy, on the same tables.

    Raises:
        ValueError: for an unknown task or frame, or for a number that is not positive.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        threads: int = 1,
        tasks: Sequence[str] | None = None,
        max_steps: int = MAX_STEPS,
        terminate_on_success: bool = True,
        frame: str = "world",
    ) -> None:
        """Compile the model and allocate the slots."""
        numbers = (("num_envs", num_envs), ("image_size", image_size), ("threads", threads))
        if any(value < 1 for _, value in (*numbers, ("max_steps", max_steps))):
            raise ValueError(f"each must be at least 1: {dict(numbers)}, max_steps {max_steps}")
        if frame not in EMBODIMENTS:
            raise ValueError(f"frame = {frame!r}: choose one of {', '.join(EMBODIMENTS)}")
        self.num_envs, self.tasks = num_envs, find_tasks(tasks)
        self.terminate_on_success, self._frame = terminate_on_success, frame
        self.spec = EnvSpec(
            suite="tabletop",
            tasks=tuple(task.name for task in self.tasks),
            cameras=tuple(CameraSpec(name, image_size, image_size) for name in CAMERAS),
            channels=tuple(
                Channel(*words, float(low), float(high))
                for words, low, high in zip(_CHANNELS, ACTION_LOW, ACTION_HIGH, strict=True)
            ),
            embodiment=EMBODIMENTS[frame],
            control_hz=CONTROL_HZ,
            max_steps=max_steps,
            state_dim=STATE_DIM,
        )
        # MuJoCo would print each warning and write MUJOCO_LOG.TXT; `_raise_if_unstable` reads them.
        mujoco.set_mju_user_warning(lambda message: None)
        self.model = build_model()
        self._batch = Batch(self.model, num_envs, threads)
        self._bind()
        self._control = ArmControl(self._batch, self.model)
        self.renderer = Renderer(self._batch, self.model, image_size)
        self._color_keys = geom_color_keys(self.model)
        self._phase = np.full(num_envs, _NEVER, np.int8)
        self._seed = np.zeros(num_envs, np.int64)
        self._task = np.zeros(num_envs, np.int64)
        self._steps = np.zeros(num_envs, np.int32)
        self._streak = np.zeros((num_envs, len(self.tasks)), np.int32)
        self._rewarded = np.zeros(num_envs, np.bool_)
        self._instruction = [""] * num_envs

    def _bind(self) -> None:
        """Views of the simulations' state, and where each object's part of it lies."""
        batch, model = self._batch, self.model
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._ctrl, self._sensors = batch.bind("ctrl"), batch.bind("sensordata")
        self._mocap_pos, self._mocap_quat = batch.bind("mocap_pos"), batch.bind("mocap_quat")
        joints = {name: model.body(name).jntadr[0] for name in MOVABLE}
        self._qpos_at = {name: int(model.jnt_qposadr[joints[name]]) for name in MOVABLE}
        self._qvel_at = {name: int(model.jnt_dofadr[joints[name]]) for name in MOVABLE}
        self._mocap_at = {name: int(model.body(name).mocapid[0]) for name in FIXED}
        self._touch_at = {
            task.source: int(model.sensor(f"touch_{task.source}").adr[0]) for task in self.tasks
        }

    @property
    def render_seconds(self) -> float:
        """Spent drawing so far."""
        return self.renderer.seconds

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """Start episodes in these slots; rows come back in the order of `env_ids`.

        Raises:
            ValueError: for an unknown task, a negative seed, a slot that does not exist or is
                named twice, or lists of different lengths.
        """
        ids = checked_slots(env_ids, self.num_envs)
        if len(starts) != len(ids):
            raise ValueError(f"{len(ids)} env ids but {len(starts)} episode starts")
        columns = [checked_task(start.task, self.spec.tasks) for start in starts]
        scenes = [sample_scene(start.seed, self._color_keys) for start in starts]
        ascending = np.sort(ids)
        self._batch.reset(ascending, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._batch.warning[ids] = 0
        for sim, start, column, scene in zip(ids, starts, columns, scenes, strict=True):
            self._place(sim, scene.objects, scene.tool)
            self.renderer.colors[sim, :-1] = scene.colors
            self.renderer.light[sim] = scene.light
            self.renderer.ego_jitter[sim] = scene.camera
            self._seed[sim], self._task[sim] = start.seed, column
            words = start.instruction
            self._instruction[sim] = (
                phrase(self.tasks[column], start.seed) if words is None else words
            )
        self._batch.forward(ascending, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self._phase[ids], self._steps[ids], self._streak[ids] = _RUNNING, 0, 0
        self._rewarded[ids] = False
        none = np.zeros(len(ids))
        return self._time_step(ids, none.astype(np.int32), none.astype(np.float32), None)

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """Execute `actions` [n, h, 5] until the chunk or the episode ends.

        Motions beyond the channels' bounds are cut to them. The reward is 1 on the first control
        step on which the task's goal is achieved.

        Raises:
            ValueError: for a slot that was never reset or whose episode has ended, for values that
                are not finite or for a wrong shape.
            UnstableSimulationError: if the physics diverged.
        """
        ids = checked_slots(env_ids, self.num_envs)
        chunk = checked_chunk(actions, ids, len(_CHANNELS), self._phase[ids] == _RUNNING)
        executed = np.zeros(len(ids), np.int32)
        reward = np.zeros(len(ids), np.float32)
        frames: list[list[NDArray[np.uint8]]] = [[] for _ in ids]
        order = np.argsort(ids)
        for k in range(chunk.shape[1]):
            rows = order[self._phase[ids[order]] == _RUNNING]
            if not len(rows):
                break
            reward[rows] += self._control_step(ids[rows], chunk[rows, k])
            executed[rows] += 1
            if record:
                drawn = self.renderer.render(ids[rows], CAMERAS[0])
                for row, frame in zip(rows, drawn, strict=True):
                    frames[row].append(frame)
        recorded = tuple(np.stack(each) for each in frames) if record else None
        return self._time_step(ids, executed, reward, recorded)

    def _control_step(
        self, ids: NDArray[np.int64], actions: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """One control step of running slots `ids` (ascending); returns their rewards [n]."""
        if self._frame == "base":
            actions = turned(actions, BASE_YAW)
        self._control.step(ids, actions)
        self._raise_if_unstable(ids)
        self._steps[ids] += 1
        self._streak[ids] = np.where(self._goals(ids), self._streak[ids] + 1, 0)
        reached = self._streak[ids, self._task[ids]] >= HOLD_STEPS
        reward = (reached & ~self._rewarded[ids]).astype(np.float32)
        self._rewarded[ids] |= reached
        ended = self._steps[ids] >= self.spec.max_steps
        if self.terminate_on_success:
            ended = ended | reached
        self._phase[ids[ended]] = _ENDED
        return reward

    def _raise_if_unstable(self, ids: NDArray[np.int64]) -> None:
        """Turn MuJoCo's silent warnings (and its resets) into an error."""
        raised = self._batch.warning[ids, :, 1] > 0
        finite = np.isfinite(self._qpos[ids]).all(axis=1)
        if not raised.any() and finite.all():
            return
        bad = ids[raised.any(axis=1) | ~finite]
        kinds = [mujoco.mjtWarning(k).name for k in np.flatnonzero(raised.any(axis=0))]
        self._phase[bad] = _ENDED
        raise UnstableSimulationError(
            f"physics of environments {bad.tolist()} is unstable ({', '.join(kinds) or 'NaN'});"
            " reset them"
        )

    def _goals(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n, tasks] whether each task's goal holds at this instant."""
        positions = self.object_positions(ids)
        goals = []
        for task in self.tasks:
            at = self._qvel_at[task.source]
            speed = np.linalg.norm(self._qvel[ids, at : at + 3], axis=1)
            touched = self._sensors[ids, self._touch_at[task.source]] > 0
            yaw = self.object_yaw(ids, task.target)
            goals.append(achieved(task, positions, yaw, speed, touched))
        return np.stack(goals, axis=1)

    def object_positions(self, env_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """[n, 8, 3] world positions of the objects' centers, in the order of `OBJECTS`."""
        positions = np.empty((len(env_ids), len(OBJECTS), 3))
        for index, name in enumerate(OBJECTS):
            if name in self._mocap_at:
                positions[:, index] = self._mocap_pos[env_ids, self._mocap_at[name]]
            else:
                at = self._qpos_at[name]
                positions[:, index] = self._qpos[env_ids, at : at + 3]
        return positions

    def object_yaw(self, env_ids: NDArray[np.int64], name: str) -> NDArray[np.float64]:
        """[n] rotation of an object about z."""
        if name in self._mocap_at:
            return yaw_of(self._mocap_quat[env_ids, self._mocap_at[name]])
        at = self._qpos_at[name]
        return yaw_of(self._qpos[env_ids, at + 3 : at + 7])

    def point_pixels(
        self, points: NDArray[np.float64], env_ids: NDArray[np.int64], camera: str
    ) -> NDArray[np.float64]:
        """[n, k, 2] image coordinates of world points [n, k, 3]; see `raycaster.project`."""
        pose = self.renderer.camera_pose(np.asarray(env_ids), camera)
        return project(points, pose, FIELD_OF_VIEW[camera])

    def end_effector(self, env_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """[n, 4] measured tool pose: x, y, z, yaw."""
        return self._control.pose(np.asarray(env_ids))

    def commanded(self, env_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """[n, 4] commanded tool pose, to which the next action adds."""
        return self._control.target[env_ids].copy()

    def in_frame(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n, 5] actions whose motions are the world's, as they are commanded here."""
        return actions if self._frame == "world" else turned(actions, -BASE_YAW)

    def state(self, env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, 11] joint angles (6), gripper opening in meters, tool x, y, z, yaw."""
        opening = self._qpos[env_ids, 6:8].sum(axis=1, keepdims=True)
        parts = [self._qpos[env_ids, :6], opening, self.end_effector(env_ids)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _place(self, sim: int, objects: NDArray[np.float64], tool: NDArray[np.float64]) -> None:
        """Put objects [8, 3] and the tool [4] of one simulation at their start."""
        self._qpos[sim, :6] = self._ctrl[sim, :6] = arm_configuration(tool)
        self._qpos[sim, 6:8] = self._ctrl[sim, 6:8] = FINGER_OPEN
        self._control.target[sim] = tool
        for name, (x, y, yaw) in zip(OBJECTS, objects, strict=True):
            position = (x, y, HALF_HEIGHT[name])
            quaternion = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
            if name in self._mocap_at:
                self._mocap_pos[sim, self._mocap_at[name]] = position
                self._mocap_quat[sim, self._mocap_at[name]] = quaternion
            else:
                at = self._qpos_at[name]
                self._qpos[sim, at : at + 7] = (*position, *quaternion)

    def _time_step(
        self,
        ids: NDArray[np.int64],
        executed: NDArray[np.int32],
        reward: NDArray[np.float32],
        frames: tuple[NDArray[np.uint8], ...] | None,
    ) -> TimeStep:
        """Observe slots `ids` as they are now."""
        order = np.argsort(ids)
        back = np.argsort(order)
        images = {name: self.renderer.render(ids[order], name)[back] for name in CAMERAS}
        task_success = self._streak[ids] >= HOLD_STEPS
        success = task_success[np.arange(len(ids)), self._task[ids]]
        ended = self._phase[ids] == _ENDED
        terminated = ended & success if self.terminate_on_success else np.zeros_like(ended)
        return TimeStep(
            env_ids=ids.copy(),
            images=images,
            state=self.state(ids),
            instruction=tuple(self._instruction[sim] for sim in ids),
            task=tuple(self.tasks[self._task[sim]].name for sim in ids),
            seed=self._seed[ids],
            step=self._steps[ids],
            executed=executed,
            reward=reward,
            success=success,
            task_success=task_success,
            terminated=terminated,
            truncated=ended & ~terminated,
            frames=frames,
        )

    def snapshot(self) -> bytes:
        """Physics, looks, counters and instructions of all slots."""
        return packed(self._arrays(), self._instruction)

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`.

        Raises:
            ValueError: for the snapshot of a suite with other sizes.
        """
        self._instruction = unpack(blob, self._arrays())
        self._batch.forward(stage=mujoco.mjtStage.mjSTAGE_POS.value)

    def _arrays(self) -> dict[str, Any]:
        """Every array that changes as episodes run."""
        return {
            "physics": self._batch.state,
            "warning": self._batch.warning,
            "target": self._control.target,
            "colors": self.renderer.colors,
            "light": self.renderer.light,
            "ego_jitter": self.renderer.ego_jitter,
            "phase": self._phase,
            "seed": self._seed,
            "task": self._task,
            "steps": self._steps,
            "streak": self._streak,
            "rewarded": self._rewarded,
        }

    def close(self) -> None:
        """Nothing is held open; safe to call twice."""
