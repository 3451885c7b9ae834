"""One environment of MetaWorld: an episode that visits its task's stage whenever it is stepped."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from envservers.metaworld.renderer import Painter, Screen
from envservers.metaworld.stage import Parked, Stage, freeze
from envservers.metaworld.tasks import INSTRUCTIONS
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart

ACTION_SCALE = 0.01
"""Meters that MetaWorld's hand is sent for an action of 1."""
GRIPPER_SPAN = 0.1
"""Meters between the fingers where MetaWorld says 1."""
INFO = (
    "near_object",
    "grasp_success",
    "grasp_reward",
    "in_place_reward",
    "obj_to_target",
    "unscaled_reward",
)
"""What `info` holds of MetaWorld's, whose meaning is each task's own."""


class Theater:
    """The stages of a process, the least recently used of which goes when there are too many.

    Args:
        limit: stages at a time.
        image_size: of the pictures.
        cameras: drawn.
        tuned: whether they are drawn without shadows, reflections and multisampling.
        close_up: whether `corner2` stands nearer.
    """

    def __init__(
        self, limit: int, image_size: int, cameras: tuple[str, ...], tuned: bool, close_up: bool
    ) -> None:
        self._limit = limit
        self._cameras, self._tuned, self._close_up = cameras, tuned, close_up
        self._screen = Screen(image_size)
        self._stages: OrderedDict[str, Stage] = OrderedDict()
        self._painters: dict[str, Painter] = {}

    def stage(self, task: str) -> Stage:
        """The stage of a task, built if there is none."""
        if task not in self._stages:
            while len(self._stages) >= self._limit:
                self._remove(next(iter(self._stages)))
            self._stages[task] = Stage(task, self._close_up)
        self._stages.move_to_end(task)
        return self._stages[task]

    def draw(self, task: str) -> dict[str, NDArray[np.uint8]]:
        """The pictures of what is on the task's stage."""
        stage = self.stage(task)
        if task not in self._painters:
            self._painters[task] = Painter(
                self._screen, stage.env.model, self._cameras, self._tuned
            )
        return self._painters[task].draw(stage.env.data)

    def close(self) -> None:
        """Free every stage."""
        while self._stages:
            self._remove(next(iter(self._stages)))

    def _remove(self, task: str) -> None:
        stage = self._stages[task]
        if stage.owner is not None:
            stage.owner.leave()
        if task in self._painters:
            self._painters.pop(task).close()
        del self._stages[task]
        stage.close()


class MetaWorldSimulator:
    """Implements `envservers.simulator.Simulator`.

    Args:
        theater: shared by the environments of the process.
        action_repeat: MetaWorld's steps for each control step.
        stop_at_success: whether a control step ends with the first of them that achieves the goal.
        on_close: called once when this one is closed.
    """

    def __init__(
        self,
        theater: Theater,
        action_repeat: int,
        stop_at_success: bool,
        on_close: Callable[[], None],
    ) -> None:
        self._theater, self._repeat, self._stop = theater, action_repeat, stop_at_success
        self._on_close = on_close
        self._task, self._seed = "", 0
        self._parked: Parked | None = None
        self._seen: NDArray[np.float64] = np.zeros(4)
        self._info = dict.fromkeys(INFO, 0.0)

    def reset(self, start: EpisodeStart) -> str:
        """Begin the episode; see `Simulator.reset`.

        Raises:
            ValueError: for a negative seed.
        """
        if start.seed < 0:
            raise ValueError(f"seed = {start.seed}: must not be negative")
        self._forget()
        self._task, self._seed = start.task, start.seed
        stage = self._taken(start.task)
        stage.begin(start.seed)
        self._seen = stage.observation[:4].copy()
        self._info = dict.fromkeys(INFO, 0.0)
        return INSTRUCTIONS[start.task]

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step; the displacement is spread over MetaWorld's steps."""
        stage = self._visit()
        theirs = np.asarray(action, np.float64)
        theirs = np.append(theirs[:3] / (ACTION_SCALE * self._repeat), theirs[3])
        reward, success = 0.0, False
        for _ in range(self._repeat):
            gained, info = stage.step(theirs)
            reward, success = reward + gained, bool(info["success"])
            if stage.unstable() or (success and self._stop):
                break
        self._seen = stage.observation[:4].copy()
        self._info = {name: float(info[name]) for name in INFO}
        return Outcome(reward, success, failed=stage.unstable())

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Draw the cameras now."""
        self._visit()
        return self._theater.draw(self._task)

    def state(self) -> NDArray[np.float32]:
        """[4] position of the hand and opening of the gripper, in meters."""
        return (self._seen * (1.0, 1.0, 1.0, GRIPPER_SPAN)).astype(np.float32)

    def info(self) -> dict[str, float]:
        """MetaWorld's figures of the last step; zeros before the first."""
        return self._info

    def expert_action(self) -> NDArray[np.float32]:
        """[4] what MetaWorld's scripted policy of the task would do now."""
        action = self._visit().expert_action()
        action[:3] *= ACTION_SCALE * self._repeat
        return action.astype(np.float32)

    def snapshot(self) -> bytes:
        """Everything that decides the rest of the episode."""
        self._visit()
        parked = self._theater.stage(self._task).park()
        books = json.dumps({"task": self._task, "seed": self._seed, "info": self._info}).encode()
        stream = io.BytesIO()
        arrays = {f"stage/{name}": value for name, value in freeze(parked).items()}
        np.savez(stream, books=np.frombuffer(books, np.uint8), seen=self._seen, **arrays)  # type: ignore[arg-type]
        return stream.getvalue()

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`."""
        with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
            books = json.loads(stored["books"].tobytes().decode())
            arrays = {
                name.removeprefix("stage/"): stored[name]
                for name in stored.files
                if name.startswith("stage/")
            }
            self._seen = stored["seen"]
        self._forget()
        self._task, self._seed, self._info = books["task"], books["seed"], books["info"]
        self._taken(self._task).thaw(self._seed, arrays)

    def leave(self) -> None:
        """Give the stage up, keeping the state."""
        stage = self._theater.stage(self._task)
        self._parked, stage.owner = stage.park(), None

    def close(self) -> None:
        """Leave, and forget the episode."""
        self._forget()
        self._on_close()

    def _forget(self) -> None:
        if self._task and self._parked is None:
            self._theater.stage(self._task).owner = None
        self._task, self._parked = "", None

    def _taken(self, task: str) -> Stage:
        """The stage, with nobody's state on it that is not kept."""
        stage = self._theater.stage(task)
        if stage.owner is not None and stage.owner is not self:
            stage.owner.leave()
        stage.owner = self
        return stage

    def _visit(self) -> Stage:
        """The stage with this episode on it."""
        stage = self._taken(self._task)
        if self._parked is not None:
            parked, self._parked = self._parked, None
            stage.resume(self._seed, parked)
        return stage
