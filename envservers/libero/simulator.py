"""One slot of LIBERO: an episode at a time, in a scene that all slots of its task share."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from envservers.held_out import HELD_OUT, published_start
from envservers.libero.camera import CAMERAS
from envservers.libero.expert import Expert
from envservers.libero.scene import EpisodeState, Scene
from envservers.libero.stage import Actor, Stage
from envservers.libero.tasks import OWN_WORDING, TRIALS, sentence
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart

ACTION_SCALE = np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0])
"""Meters, radians and the gripper's command at LIBERO's own action of 1."""


class LiberoSimulator:
    """Implements `envservers.simulator.Simulator`.

    Args:
        stage: where its scenes are.
        variant: of LIBERO-PRO, or empty.
        tasks: how many the suite has.
    """

    def __init__(self, stage: Stage, variant: str, tasks: int) -> None:
        self._stage, self._variant, self._tasks = stage, variant, tasks
        self._actor = Actor()
        self._expert = Expert()

    def reset(self, start: EpisodeStart) -> str:
        """Begin an episode; see `docs/suites/libero.md` for what its seed means."""
        official = published_start(start.seed, self._tasks, TRIALS)
        # An official state is one start, whatever number it was asked for by.
        seed = start.seed if official is None else HELD_OUT + official
        scene = self._stage.cleared(self._actor, start.task)
        scene.begin(seed, official)
        self._expert = Expert()
        own = self._variant in OWN_WORDING
        return scene.problem.instruction if own else sentence(start.task)

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step of 50 ms."""
        scaled = np.clip(np.asarray(action, np.float64) / ACTION_SCALE, -1, 1)
        success = self._scene().step(scaled)
        return Outcome(reward=float(success), success=success)

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Both cameras."""
        scene = self._scene()
        scene.refresh()
        return {view: scene.image(view) for view in CAMERAS}

    def state(self) -> NDArray[np.float32]:
        """[8] hand position, rotation as axis times angle, two fingers."""
        scene = self._scene()
        scene.refresh()
        return scene.proprioception()

    def info(self) -> dict[str, float]:
        """Share of the goal's conditions that hold."""
        return {"goals_met": self._scene().goals_met()}

    def expert_action(self) -> NDArray[np.float32]:
        """[7] what the scripted expert would do now."""
        scene = self._scene()
        scene.refresh()
        return (self._expert.act(scene) * ACTION_SCALE).astype(np.float32)

    def snapshot(self) -> bytes:
        """Task, expert's memory, state."""
        head = json.dumps([self._actor.task, self._expert.memory()]).encode()
        return len(head).to_bytes(4, "little") + head + self._scene().save().to_bytes()

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`."""
        begin = 4 + int.from_bytes(blob[:4], "little")
        task, memory = json.loads(blob[4:begin])
        self._stage.put(self._actor, task, EpisodeState.from_bytes(blob[begin:]))
        self._expert = Expert(memory)

    def close(self) -> None:
        """Leave the scene."""
        self._stage.leave(self._actor)

    def _scene(self) -> Scene:
        return self._stage.with_episode_of(self._actor)
