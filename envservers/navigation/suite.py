"""The navigation suite: rooms seen by an agent that moves by waypoints in the plane.

Composes the model (`scene.py`), the draw of an episode (`sampling.py`), the plane (`geometry.py`,
`planner.py`) and the camera; owns the episodes' books. Motion is kinematic: a waypoint is carried
out as it is, up to the agent's speed, and along an obstacle where one is in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envservers.navigation.geometry import Floats, is_clear, slide
from envservers.navigation.planner import distance_from
from envservers.navigation.sampling import (
    PERSON,
    WALK_STEPS,
    WALLS,
    EpisodeSample,
    Rooms,
    sample_episode,
    sample_rooms,
)
from envservers.navigation.scene import (
    AGENT_RADIUS,
    ARENA,
    AWAY,
    CAMERA_HEIGHT,
    CAMERA_PITCH,
    FIELD_OF_VIEW,
    PARKED,
    build_model,
)
from envservers.navigation.slots import ENDED, RUNNING, Slots
from envservers.navigation.tasks import (
    STILL_MOVE,
    STILL_STEPS,
    STILL_TURN,
    SUCCESS_DISTANCE,
    find_tasks,
)
from envservers.raycaster import CameraPose, RayCaster, look_at
from envservers.requests import checked_chunk, checked_slots, checked_task
from envservers.snapshots import packed, unpack
from vlarl.types import CameraSpec, Channel, EnvSpec, EpisodeStart, TimeStep
from vlarl.waypoints import moved, waypoints_from_poses, wrapped

CONTROL_HZ = 2.0
MAX_STEPS = 40
"""About twice the longest of the expert's episodes."""
MAX_MOVE, MAX_TURN = 0.5, 0.7854
"""Meters and radians of one waypoint that the agent can do; more is cut to it."""
STATE_DIM = 3
_CHANNELS = (
    Channel("dx", "m", "waypoint", -2.0, 2.0),
    Channel("dy", "m", "waypoint", -2.0, 2.0),
    Channel("dtheta", "rad", "waypoint", -3.1416, 3.1416),
)


class NavigationSuite:
    """`num_envs` navigation environments; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: number of slots.
        image_size: width and height of the camera's images, in pixels.
        threads: worker threads of the renderer.
        tasks: names of the tasks that episodes may have (default: all); one column each in
            `TimeStep.task_success`, of which only the episode's own can be true: its scene has no
            goal of another.
        max_steps: control steps after which an episode is truncated.
        terminate_on_success: whether reaching the goal ends the episode, and the chunk.

    Raises:
        ValueError: for an unknown task, or for a number that is not positive.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        threads: int = 1,
        tasks: Sequence[str] | None = None,
        max_steps: int = MAX_STEPS,
        terminate_on_success: bool = True,
    ) -> None:
        """Compile the model and allocate the slots."""
        numbers = (("num_envs", num_envs), ("image_size", image_size), ("threads", threads))
        if any(value < 1 for _, value in (*numbers, ("max_steps", max_steps))):
            raise ValueError(f"each must be at least 1: {dict(numbers)}, max_steps {max_steps}")
        self.num_envs, self.tasks = num_envs, find_tasks(tasks)
        self.terminate_on_success = terminate_on_success
        self.spec = EnvSpec(
            suite="navigation",
            tasks=tuple(task.name for task in self.tasks),
            cameras=(CameraSpec("ego", image_size, image_size),),
            channels=_CHANNELS,
            embodiment="vln_agent",
            control_hz=CONTROL_HZ,
            max_steps=max_steps,
            state_dim=STATE_DIM,
        )
        self.model = build_model()
        self._batch = Batch(self.model, num_envs, threads)
        self._batch.bind("xpos")
        self._places = self._batch.bind("mocap_pos")
        self.renderer = RayCaster(self._batch, self.model, image_size, {"ego": FIELD_OF_VIEW})
        self.slots = Slots.allocate(num_envs)
        self._instruction = [""] * num_envs

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
        slots = self.slots
        ids = checked_slots(env_ids, self.num_envs)
        if len(starts) != len(ids):
            raise ValueError(f"{len(ids)} env ids but {len(starts)} episode starts")
        columns = [checked_task(start.task, self.spec.tasks) for start in starts]
        rooms = [sample_rooms(start.seed) for start in starts]
        for sim, start, column, scene in zip(ids.tolist(), starts, columns, rooms, strict=True):
            episode = sample_episode(scene, start.task, start.seed)
            self._place(sim, scene, episode)
            slots.seed[sim], slots.task[sim] = start.seed, column
            words = start.instruction
            self._instruction[sim] = episode.instruction if words is None else words
        slots.phase[ids] = RUNNING
        for counter in (slots.steps, slots.still, slots.collisions, slots.in_view, slots.walked):
            counter[ids] = 0
        slots.succeeded[ids], slots.path[ids] = False, 0.0
        slots.been_near[ids] = self._is_near(ids)
        nothing = np.zeros(len(ids))
        return self._time_step(ids, nothing.astype(np.int32), nothing.astype(np.float32), None)

    def _place(self, sim: int, rooms: Rooms, episode: EpisodeSample) -> None:
        """Put one simulation's things, and the agent, at their start."""
        slots = self.slots
        around = rooms.obstacles
        slots.center[sim], slots.half[sim], slots.radius[sim] = around
        if episode.goal == PERSON:
            slots.center[sim, PERSON] = episode.walk[0]
        centers = slots.center[sim]
        absent = centers[:, :1] == PARKED
        self._places[sim] = np.where(absent, AWAY, np.pad(centers, ((0, 0), (0, 1))))
        slots.pose[sim] = slots.start[sim] = episode.start
        slots.goal[sim], slots.walk[sim], slots.field[sim] = (
            episode.goal,
            episode.walk,
            episode.field,
        )
        slots.shortest[sim] = distance_from(episode.start[:2], episode.field)
        floor, wall, clothes, head = rooms.surface_colors
        surfaces = [floor, *[wall] * (4 + WALLS.stop), *rooms.landmark_colors, clothes, head]
        self.renderer.colors[sim, :-1] = surfaces
        self.renderer.light[sim] = rooms.light

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """Execute `actions` [n, h, 3], waypoints, until the chunk or the episode ends.

        Each is relative to where the agent got to with the one before. The reward is 1 on the
        control step on which the task's goal is first achieved.

        Raises:
            ValueError: for a slot that was never reset or whose episode has ended, for values that
                are not finite or for a wrong shape.
        """
        slots = self.slots
        ids = checked_slots(env_ids, self.num_envs)
        chunk = checked_chunk(actions, ids, len(_CHANNELS), self.slots.phase[ids] == RUNNING)
        executed = np.zeros(len(ids), np.int32)
        reward = np.zeros(len(ids), np.float32)
        frames: list[list[NDArray[np.uint8]]] = [[] for _ in ids]
        order = np.argsort(ids)
        for k in range(chunk.shape[1]):
            rows = order[slots.phase[ids[order]] == RUNNING]
            if not len(rows):
                break
            reward[rows] += self._control_step(ids[rows], chunk[rows, k])
            executed[rows] += 1
            if record:
                for row, frame in zip(rows, self.render(ids[rows]), strict=True):
                    frames[row].append(frame)
        recorded = tuple(np.stack(each) for each in frames) if record else None
        return self._time_step(ids, executed, reward, recorded)

    def _control_step(self, ids: NDArray[np.int64], waypoints: Floats) -> NDArray[np.float32]:
        """One control step of running slots `ids` (ascending); returns their rewards [n]."""
        slots = self.slots
        length = np.linalg.norm(waypoints[:, :2], axis=-1)
        share = np.minimum(MAX_MOVE / np.maximum(length, 1e-9), 1.0)
        turn = np.clip(waypoints[:, 2], -MAX_TURN, MAX_TURN)
        wanted = np.concatenate([waypoints[:, :2] * share[:, None], turn[:, None]], axis=-1)
        before = slots.pose[ids]
        after = moved(before, wanted)
        after[:, :2], blocked = slide(
            before[:, :2], after[:, :2], slots.obstacles(ids), AGENT_RADIUS, ARENA
        )
        after[:, 2] = wrapped(after[:, 2])
        slots.pose[ids] = after
        self._move_person(ids)
        slots.steps[ids] += 1
        slots.collisions[ids] += blocked
        slots.path[ids] += np.linalg.norm(after[:, :2] - before[:, :2], axis=-1)
        slots.in_view[ids] += self._sees_goal(ids)
        still = (length < STILL_MOVE) & (np.abs(turn) < STILL_TURN)
        slots.still[ids] = np.where(still, slots.still[ids] + 1, 0)
        near = self._is_near(ids)
        slots.been_near[ids] |= near
        reached = near & (slots.still[ids] >= STILL_STEPS) & self._arrived(ids)
        reward = (reached & ~slots.succeeded[ids]).astype(np.float32)
        slots.succeeded[ids] |= reached
        ended = slots.steps[ids] >= self.spec.max_steps
        if self.terminate_on_success:
            ended = ended | reached
        slots.phase[ids[ended]] = ENDED
        return reward

    def _move_person(self, ids: NDArray[np.int64]) -> None:
        """A goal that walks does so, unless the agent stands in its way."""
        slots = self.slots
        ids = ids[(slots.goal[ids] == PERSON) & (slots.walked[ids] < WALK_STEPS)]
        there = slots.walk[ids, slots.walked[ids] + 1]
        room = np.linalg.norm(there - slots.pose[ids, :2], axis=-1)
        here = np.linalg.norm(slots.center[ids, PERSON] - slots.pose[ids, :2], axis=-1)
        goes = (room > AGENT_RADIUS + slots.radius[ids, PERSON] + 0.05) | (room > here)
        ids, there = ids[goes], there[goes]
        slots.walked[ids] += 1
        slots.center[ids, PERSON] = there
        self._places[ids, PERSON, :2] = there

    def _arrived(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether the goal is where it ends up."""
        slots = self.slots
        here = slots.goal_center(ids)
        arrived: NDArray[np.bool_] = (here == slots.walk[ids, -1]).all(axis=-1)
        return arrived

    def _is_near(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether the goal is within the success distance, with no wall between."""
        slots = self.slots
        goal, place = slots.goal_center(ids), slots.pose[ids, :2]
        walls = slots.obstacles(ids).only(WALLS)
        near = np.linalg.norm(goal - place, axis=-1) <= SUCCESS_DISTANCE
        return near & is_clear(place, goal, walls, 0.0)

    def _sees_goal(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether the goal's center is in the field of view, with no wall between."""
        slots = self.slots
        goal, pose = slots.goal_center(ids), slots.pose[ids]
        towards = np.concatenate([goal, np.zeros((len(ids), 1))], axis=-1)
        way = waypoints_from_poses(np.stack([pose, towards], axis=1))[:, 0]
        ahead = np.abs(np.arctan2(way[:, 1], way[:, 0])) <= np.radians(FIELD_OF_VIEW / 2)
        return ahead & is_clear(pose[:, :2], goal, slots.obstacles(ids).only(WALLS), 0.0)

    def camera_pose(self, ids: NDArray[np.int64]) -> CameraPose:
        """Of the agents' cameras."""
        slots = self.slots
        x, y, heading = slots.pose[ids].T
        position = np.stack([x, y, np.full(len(ids), CAMERA_HEIGHT)], axis=-1)
        forwards = np.stack([np.cos(heading), np.sin(heading), np.full(len(ids), -CAMERA_PITCH)])
        return look_at(position, position + forwards.T, np.array([0.0, 0.0, 1.0]))

    def render(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """[n, size, size, 3] what the agents of slots `ids` (ascending) see."""
        self._batch.forward(ids, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        return self.renderer.draw(ids, self.camera_pose(ids), "ego")[0]

    def state(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, 3] odometry: the pose relative to the episode's start, in the start's frame."""
        slots = self.slots
        poses = np.stack([slots.start[ids], slots.pose[ids]], axis=1)
        return waypoints_from_poses(poses)[:, 0].astype(np.float32)

    def _info(self, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """The metrics of VLN-CE, meters and shares: of the episode so far."""
        slots = self.slots
        away = [distance_from(slots.pose[sim, :2], slots.field[sim]) for sim in ids]
        longer = np.maximum(slots.path[ids], slots.shortest[ids])
        values = {
            "distance_to_goal": np.array(away),
            "oracle_success": slots.been_near[ids],
            "path_length": slots.path[ids],
            "shortest_path": slots.shortest[ids],
            "spl": slots.succeeded[ids] * slots.shortest[ids] / np.maximum(longer, 1e-9),
            "collisions": slots.collisions[ids],
            "goal_in_view": slots.in_view[ids] / np.maximum(slots.steps[ids], 1),
        }
        return {name: np.asarray(value, np.float32) for name, value in values.items()}

    def _time_step(
        self,
        ids: NDArray[np.int64],
        executed: NDArray[np.int32],
        reward: NDArray[np.float32],
        frames: tuple[NDArray[np.uint8], ...] | None,
    ) -> TimeStep:
        """Observe slots `ids` as they are now."""
        slots = self.slots
        order = np.argsort(ids)
        success, ended = slots.succeeded[ids], slots.phase[ids] == ENDED
        own = slots.task[ids][:, None] == np.arange(len(self.tasks))
        terminated = ended & success & self.terminate_on_success
        return TimeStep(
            env_ids=ids.copy(),
            images={"ego": self.render(ids[order])[np.argsort(order)]},
            state=self.state(ids),
            instruction=tuple(self._instruction[sim] for sim in ids),
            task=tuple(self.tasks[slots.task[sim]].name for sim in ids),
            seed=slots.seed[ids],
            step=slots.steps[ids],
            executed=executed,
            reward=reward,
            success=success,
            task_success=success[:, None] & own,
            terminated=terminated,
            truncated=ended & ~terminated,
            info=self._info(ids),
            frames=frames,
        )

    def snapshot(self) -> bytes:
        """Places, looks, counters and instructions of all slots."""
        return packed(self._arrays(), self._instruction)

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`.

        Raises:
            ValueError: for the snapshot of a suite with other sizes.
        """
        self._instruction = unpack(blob, self._arrays())

    def _arrays(self) -> dict[str, Any]:
        """Every array that changes as episodes run."""
        looks = {"colors": self.renderer.colors, "light": self.renderer.light}
        return {**self.slots.arrays(), **looks, "places": self._places}

    def close(self) -> None:
        """Nothing is held open; safe to call twice."""
