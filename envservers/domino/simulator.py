"""One environment of DOMINO: a scene of RoboTwin's with an object that moves, and its own rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envservers.domino.checkout import CheckoutRuntime
from envservers.robotwin.scenes import Scenes
from envservers.robotwin.simulator import RoboTwinSimulator
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart


class _Lift(NamedTuple):
    """What must have been lifted for success to count."""

    actor: Any
    start: float
    threshold: float

    def done(self) -> bool:
        """Whether it is above its threshold now."""
        return bool(self.actor.get_pose().p[2] - self.start > self.threshold)


class DominoSimulator(RoboTwinSimulator):
    """Implements `envservers.simulator.Simulator`.

    Args:
        scenes: shared by the environments of the process.
        image_size: height of the pictures, in pixels.
        limits: task -> control steps of an episode.
        runtime: the checkout.
    """

    def __init__(
        self,
        scenes: Scenes,
        image_size: int,
        limits: Mapping[str, int],
        runtime: CheckoutRuntime,
    ) -> None:
        super().__init__(scenes, image_size, limits)
        self._runtime = runtime
        self._metrics: Any = None
        self._lift: _Lift | None = None
        self._stops = True
        self._success = False

    def reset(self, start: EpisodeStart) -> str:
        """Begin the episode; see `RoboTwinSimulator.reset`."""
        words = super().reset(start)
        with self.own_random():
            motion = self.task.get_dynamic_motion_config() or {}
            self._metrics = self._runtime.metrics(self.task, start.task)
        self._lift, self._success = None, False
        if "check_z_threshold" in motion:
            actor = motion["check_z_actor" if "check_z_actor" in motion else "target_actor"]
            height = float(actor.get_pose().p[2])
            self._lift = _Lift(actor, height, float(motion["check_z_threshold"]))
        self._stops = bool(motion.get("stop_on_contact", True))
        return words

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step, judged by DOMINO's rules.

        Success counts only if the object was lifted where the task asks for it, else the episode is
        lost. It is lost too when the object leaves the table before a gripper touches it.
        """
        achieved = super().step(action).success
        if self._lift is not None and self._lift.done():
            self._lift = None
        if achieved:
            self._success = self._lift is None
            return Outcome(float(self._success), self._success, failed=not self._success)
        with self.own_random():
            return Outcome(0.0, False, failed=self._lost())

    def info(self) -> dict[str, float]:
        """The manipulation score so far (0 to 100), and what it is the product of."""
        episode = self._metrics.get_episode_metrics(self._success)
        return {
            "manipulation_score": float(episode.manipulation_score),
            "route_completion": float(episode.route_completion),
            "penalty_factor": float(episode.total_penalty_factor),
        }

    def _lost(self) -> bool:
        if self.task.check_gripper_contact_dynamic_object() and self._stops:
            self.task.stop_dynamic_object_motion()
        moves = not getattr(self.task, "_dynamic_object_stopped", False)
        if moves and not self.task.check_dynamic_object_boundary():
            self._metrics.record_out_of_bounds()
            return True
        return bool(self.task.eval_fail)
