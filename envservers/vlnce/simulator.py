"""One slot of VLN-CE: an agent that moves by waypoints, and its episode's measures."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray

from envservers.held_out import HELD_OUT
from envservers.simulator import Outcome
from envservers.vlnce.dataset import Dataset, Episode
from envservers.vlnce.metrics import PathMetrics
from envservers.vlnce.scenes import Building, Buildings
from envservers.vlnce.tasks import (
    FORWARD_STEP,
    MAX_MOVE,
    MAX_TURN,
    STILL_MOVE,
    STILL_STEPS,
    STILL_TURN,
)
from vlarl.types import EpisodeStart
from vlarl.waypoints import waypoints_from_poses


class VlnSimulator:
    """Implements `envservers.simulator.Simulator`.

    Args:
        dataset: whose episodes.
        buildings: where they are.
        turn: radians of one of VLN-CE's own turns.
    """

    def __init__(self, dataset: Dataset, buildings: Buildings, turn: float) -> None:
        self._dataset, self._buildings, self._turn = dataset, buildings, turn
        self._seed = HELD_OUT
        self._place, self._heading = np.zeros(3), 0.0
        self._still, self._actions = 0, 0
        self._metrics = PathMetrics(np.zeros(3), 0.0, np.zeros((1, 3)))

    def reset(self, start: EpisodeStart) -> str:
        """Begin the episode that the seed stands for; see `docs/suites/vln-ce.md`."""
        episode = self._dataset.episode(start.seed)
        self._seed = start.seed
        self._place, self._heading = episode.start.copy(), episode.heading
        self._still, self._actions = 0, 0
        shortest = self._building().distance(episode.start, episode.goal)
        if not math.isfinite(shortest):
            raise ValueError(f"no way from start to goal in {episode.scene}: not VLN-CE's meshes?")
        self._metrics = PathMetrics(episode.start, shortest, episode.reference)
        return episode.instruction

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """Go to the waypoint, then turn. Standing still for long enough is VLN-CE's STOP."""
        ahead, left, turn = (float(value) for value in action)
        length = math.hypot(ahead, left)
        share = min(1.0, MAX_MOVE / max(length, 1e-9))
        turn = min(max(turn, -MAX_TURN), MAX_TURN)
        still = length < STILL_MOVE and abs(turn) < STILL_TURN
        self._still = self._still + 1 if still else 0
        if self._still >= STILL_STEPS:
            success = self._metrics.stop()
            return Outcome(reward=float(success), success=success, failed=not success)
        building, episode = self._building(), self._episode()
        self._walk(building, ahead * share, left * share)
        self._heading += turn
        self._actions += math.ceil(length * share / FORWARD_STEP - 1e-6)
        self._actions += math.ceil(abs(turn) / self._turn - 1e-6)
        self._metrics.arrive(self._place, building.distance(self._place, episode.goal))
        return Outcome(reward=0.0, success=False)

    def _walk(self, building: Building, ahead: float, left: float) -> None:
        sine, cosine = math.sin(self._heading), math.cos(self._heading)
        # Ahead is -z, left is -x, both turned about y.
        way = np.array([-sine * ahead - cosine * left, 0.0, sine * left - cosine * ahead])
        pieces = max(1, math.ceil(math.hypot(ahead, left) / FORWARD_STEP - 1e-6))
        for _ in range(pieces):
            self._place = building.step(self._place, self._place + way / pieces)

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """The agent's camera."""
        return {"ego": self._building().view(self._place, self._heading)}

    def state(self) -> NDArray[np.float32]:
        """[3] odometry: meters ahead and to the left of the start, radians."""
        episode = self._episode()
        first = _planar(episode.start, episode.heading)
        poses = np.stack([first, _planar(self._place, self._heading)])
        return waypoints_from_poses(poses)[0].astype(np.float32)

    def info(self) -> dict[str, float]:
        """VLN-CE's measures, and how many of its own actions the way so far amounts to."""
        return {**self._metrics.values(), "actions": float(self._actions)}

    def expert_action(self) -> NDArray[np.float32]:
        """Not offered."""
        raise NotImplementedError("suite 'vln-ce' has no expert: train on VLN-CE's demonstrations")

    def snapshot(self) -> bytes:
        """Where the agent is, and the measures so far; the building never changes."""
        stream = io.BytesIO()
        own = np.array([self._seed, self._still, self._actions], np.int64)
        pose = np.array([*self._place, self._heading])
        np.savez(stream, own=own, pose=pose, **self._metrics.state())  # type: ignore[arg-type]
        return stream.getvalue()

    def restore(self, blob: bytes) -> None:
        """Undo everything since `snapshot` returned `blob`."""
        with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
            arrays = dict(stored)
        self._seed, self._still, self._actions = arrays.pop("own").tolist()
        pose = arrays.pop("pose")
        self._place, self._heading = pose[:3], float(pose[3])
        self._metrics = PathMetrics.restore(arrays)

    def close(self) -> None:
        """Nothing: buildings belong to the suite."""

    def _episode(self) -> Episode:
        return self._dataset.episode(self._seed)

    def _building(self) -> Building:
        return self._buildings.enter(self._dataset.scene_file(self._episode()))


def _planar(place: NDArray[np.float64], heading: float) -> NDArray[np.float64]:
    """[3] the pose in the ground plane: x along -z, y along -x."""
    return np.array([-place[2], -place[0], heading])
