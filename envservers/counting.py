"""The counting suite: environments whose observation is their own identity and history.

State and every pixel say which environment, episode, step, seed, task and last action they belong
to, so that any mix-up of ids, resets, rows, slots or clients fails at once in `check_transition`.
It can also crash, hang, raise, or return NaN on demand. No physics and no meaning: for tests.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.errors import UserError
from vlarl.types import CameraSpec, Channel, EnvSpec, EpisodeStart, TimeStep

TASKS = ("count_red", "count_blue")
CAMERAS = ("ego", "cam_right_wrist")
ACTION_CHANNELS = 3
STATE_DIM = 5 + ACTION_CHANNELS
"""environment id, episode number, step, seed modulo 2**20, task index, then the last action."""


@dataclass
class _Slot:
    episode: int
    start: EpisodeStart
    step: int
    last_action: NDArray[np.float32]
    done: bool


def success_step(seed: int, task: str, episode_length: int) -> int:
    """Control step at which an episode succeeds; beyond `episode_length` for about half of them."""
    mixed = (seed * 2654435761 + TASKS.index(task) * 40503) % (2**32)
    return 1 + (mixed >> 8) % (2 * episode_length)


def spread_of(slow_tail: float) -> float:
    """Deviation of the logarithm, where the 99th percentile is `slow_tail` times the median."""
    return math.log(slow_tail) / 2.3263478740408408


def paint(state: NDArray[np.float32], camera: int, size: int) -> NDArray[np.uint8]:
    """The image [size, size, 3] of one state row [STATE_DIM] as seen by a camera."""
    words = np.append(state, np.float32(camera)).astype("<f4")
    stamp = np.frombuffer(words.tobytes(), np.uint8)
    return np.resize(stamp, (size, size, 3))


class CountingSuite:
    """`num_envs` counting environments.

    Args:
        num_envs: environments.
        episode_length: control steps until truncation (`max_steps` overrides it when positive).
        image_size: height and width of both cameras.
        tasks: a subset of `TASKS`.
        seconds_per_step: pretended simulation time of a control step of one call.
        slow_tail: the 99th percentile of that time over its median, where it is drawn anew for each
            call, from a log-normal distribution; 1: always the same.
        crash_at: the process kills itself in this call of `step` (1 is the first; 0: never).
        hang_at: this call of `step` never returns.
        raise_at: this call of `step` raises.
        nan_at: this call of `step` returns NaN in the state of its first row.
        wrong_shape_at: this call of `step` returns images of half the height.
    """

    def __init__(
        self,
        num_envs: int,
        episode_length: int = 20,
        image_size: int = 16,
        tasks: Sequence[str] = TASKS,
        max_steps: int = 0,
        seconds_per_step: float = 0.0,
        slow_tail: float = 1.0,
        crash_at: int = 0,
        hang_at: int = 0,
        raise_at: int = 0,
        nan_at: int = 0,
        wrong_shape_at: int = 0,
    ) -> None:
        for task in tasks:
            if task not in TASKS:
                raise UserError(f"unknown task {task!r}; tasks: {', '.join(TASKS)}")
        self.num_envs = num_envs
        self._length = max_steps or episode_length
        self._seconds_per_step = seconds_per_step
        self._spread = spread_of(slow_tail)
        # Not the environments' business, which a seed repeats: servers are slow at different times.
        self._luck = np.random.default_rng()
        self._faults = {
            "crash": crash_at,
            "hang": hang_at,
            "raise": raise_at,
            "nan": nan_at,
            "wrong_shape": wrong_shape_at,
        }
        self._calls = 0
        self._episodes = [0] * num_envs
        self._slots: list[_Slot | None] = [None] * num_envs
        self.spec = EnvSpec(
            suite="counting",
            tasks=tuple(tasks),
            cameras=tuple(CameraSpec(name, image_size, image_size) for name in CAMERAS),
            channels=tuple(
                Channel(f"number_{i}", "1", "absolute_joint", -100.0, 100.0)
                for i in range(ACTION_CHANNELS)
            ),
            embodiment="counting",
            control_hz=5.0,
            max_steps=self._length,
            state_dim=STATE_DIM,
        )

    def reset(self, env_ids: NDArray[np.int64], starts: Sequence[EpisodeStart]) -> TimeStep:
        """Start episodes; the episode counter of a slot only grows."""
        for env_id, start in zip(env_ids.tolist(), starts, strict=True):
            self._episodes[env_id] += 1
            nothing = np.zeros(ACTION_CHANNELS, np.float32)
            self._slots[env_id] = _Slot(self._episodes[env_id], start, 0, nothing, False)
        return self._observe(env_ids, np.zeros(len(env_ids), np.int32), None)

    def step(
        self, env_ids: NDArray[np.int64], actions: NDArray[np.float32], record: bool = False
    ) -> TimeStep:
        """Count; raises ValueError for a slot without a running episode."""
        slots = [self._running(env_id) for env_id in env_ids.tolist()]
        self._calls += 1
        self._fail_before()
        executed = np.zeros(len(slots), np.int32)
        frames: list[NDArray[np.uint8]] = []
        slowness = math.exp(self._spread * self._luck.standard_normal())
        time.sleep(slowness * self._seconds_per_step * actions.shape[1])
        for row, slot in enumerate(slots):
            film = []
            for action in actions[row]:
                if slot.done:
                    break
                slot.step += 1
                slot.last_action = action.copy()
                executed[row] += 1
                goal = success_step(slot.start.seed, slot.start.task, self._length)
                slot.done = slot.step >= min(goal, self._length)
                film.append(self._image(int(env_ids[row]), 0))
            frames.append(np.stack(film))
        answer = self._observe(env_ids, executed, tuple(frames) if record else None)
        return self._fail_after(answer)

    def snapshot(self) -> bytes:
        """All counters."""
        slots = [
            slot
            and {**vars(slot), "start": vars(slot.start), "last_action": slot.last_action.tolist()}
            for slot in self._slots
        ]
        return json.dumps({"slots": slots, "episodes": self._episodes}).encode()

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot`."""
        counters = json.loads(blob)
        self._episodes = counters["episodes"]
        self._slots = [
            slot
            and _Slot(
                episode=slot["episode"],
                start=EpisodeStart(**slot["start"]),
                step=slot["step"],
                last_action=np.array(slot["last_action"], np.float32),
                done=slot["done"],
            )
            for slot in counters["slots"]
        ]

    def close(self) -> None:
        """Nothing to free."""

    def _running(self, env_id: int) -> _Slot:
        slot = self._slots[env_id]
        if slot is None:
            raise ValueError(f"environment {env_id} was never reset")
        if slot.done:
            raise ValueError(f"the episode of environment {env_id} has ended: reset it first")
        return slot

    def _fail_before(self) -> None:
        if self._calls == self._faults["crash"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._calls == self._faults["hang"]:
            time.sleep(3600)
        if self._calls == self._faults["raise"]:
            raise RuntimeError("the counting suite was told to raise")

    def _fail_after(self, answer: TimeStep) -> TimeStep:
        if self._calls == self._faults["nan"]:
            answer.state[0, 0] = np.nan
        if self._calls == self._faults["wrong_shape"]:
            for name, image in answer.images.items():
                answer.images[name] = image[:, ::2]
        return answer

    def _state(self, env_id: int) -> NDArray[np.float32]:
        slot = self._slots[env_id]
        assert slot is not None
        identity = [
            env_id,
            slot.episode,
            slot.step,
            slot.start.seed % 2**20,
            TASKS.index(slot.start.task),
        ]
        return np.concatenate([np.array(identity, np.float32), slot.last_action])

    def _image(self, env_id: int, camera: int) -> NDArray[np.uint8]:
        return paint(self._state(env_id), camera, self.spec.cameras[camera].height)

    def _observe(
        self,
        env_ids: NDArray[np.int64],
        executed: NDArray[np.int32],
        frames: tuple[NDArray[np.uint8], ...] | None,
    ) -> TimeStep:
        ids = env_ids.tolist()
        slots = [slot for slot in (self._slots[env_id] for env_id in ids) if slot is not None]
        steps = np.array([slot.step for slot in slots], np.int32)
        goals = [
            [success_step(slot.start.seed, task, self._length) for task in self.spec.tasks]
            for slot in slots
        ]
        task_success = steps[:, None] >= np.array(goals)
        own = [self.spec.tasks.index(slot.start.task) for slot in slots]
        success = task_success[np.arange(len(slots)), own]
        return TimeStep(
            env_ids=env_ids.copy(),
            images={
                name: np.stack([self._image(env_id, camera) for env_id in ids])
                for camera, name in enumerate(CAMERAS)
            },
            state=np.stack([self._state(env_id) for env_id in ids]),
            instruction=tuple(
                slot.start.instruction or f"{slot.start.task} with seed {slot.start.seed}"
                for slot in slots
            ),
            task=tuple(slot.start.task for slot in slots),
            seed=np.array([slot.start.seed for slot in slots], np.int64),
            step=steps,
            executed=executed,
            reward=executed.astype(np.float32),
            success=success,
            task_success=task_success,
            terminated=success.copy(),
            truncated=(steps >= self._length) & ~success,
            info={"remaining": (self._length - steps).astype(np.float32)},
            frames=frames,
        )


def check_observation(time_step: TimeStep) -> None:
    """Assert that every row's image, state and fields tell of one and the same moment."""
    for row, env_id in enumerate(time_step.env_ids.tolist()):
        state = time_step.state[row]
        assert state[0] == env_id, f"row {row} of environment {env_id} shows environment {state[0]}"
        assert state[2] == time_step.step[row], f"environment {env_id}: state of another step"
        assert state[3] == time_step.seed[row] % 2**20, f"environment {env_id}: another seed"
        assert TASKS[int(state[4])] == time_step.task[row], f"environment {env_id}: another task"
        for camera, name in enumerate(CAMERAS):
            image = time_step.images[name][row]
            expected = paint(state, camera, image.shape[0])
            assert np.array_equal(image, expected), f"environment {env_id}: a stranger's {name}"


def check_transition(before: TimeStep, actions: NDArray[np.float32], after: TimeStep) -> None:
    """Assert that `after` is what `actions` [n, h, c] make of `before`, row by row.

    Raises:
        AssertionError: naming the environment whose history is not its own.
    """
    check_observation(before)
    check_observation(after)
    assert np.array_equal(before.env_ids, after.env_ids), "rows of other environments came back"
    for row, env_id in enumerate(after.env_ids.tolist()):
        executed = int(after.executed[row])
        assert 1 <= executed <= actions.shape[1], f"environment {env_id} executed {executed} steps"
        if executed < actions.shape[1]:
            assert after.done[row], f"environment {env_id} stopped within a running episode"
        assert after.state[row, 1] == before.state[row, 1], f"environment {env_id} changed episode"
        assert after.step[row] == before.step[row] + executed, f"environment {env_id} miscounted"
        shown = after.state[row, 5:]
        assert np.array_equal(shown, actions[row, executed - 1]), f"{env_id}: another's action"
