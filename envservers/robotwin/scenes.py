"""Which scene an episode begins with: the seed's own, or the next that can be played.

Not every seed of RoboTwin's makes a scene that stands still, and the published protocol leaves out
those that its expert fails. Here each of our seeds has candidates of its own, so that a start means
the same scene whatever was played before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from envservers.held_out import HELD_OUT
from envservers.robotwin.runtime import Runtime

EVALUATION = 100_000
"""The first of the benchmark's seeds that its own evaluation takes."""
_STRIDE = 10_000_000
_CANDIDATES = 40


@dataclass(frozen=True)
class Scene:
    """One that can be played."""

    seed: int
    """RoboTwin's."""
    info: Mapping[str, str]
    """What the sentences' placeholders stand for."""
    kept: Any = None
    """Of `Runtime.kept`."""


def seed_of(seed: int) -> int:
    """The benchmark's seed for one of ours: held-out ones are those of its own evaluation.

    Training's are kept clear of them.
    """
    if seed >= HELD_OUT:
        return EVALUATION + seed - HELD_OUT
    return seed if seed < EVALUATION else seed + HELD_OUT


class Scenes:
    """Of all environments of a process.

    Args:
        runtime: the program.
        expert_check: whether a scene counts only if the benchmark's expert solves it.
    """

    def __init__(self, runtime: Runtime, expert_check: bool) -> None:
        self._runtime, self._expert_check = runtime, expert_check
        self._known: dict[tuple[str, int], Scene] = {}

    def open(self, name: str, seed: int) -> tuple[Any, Scene]:
        """A task's object with its scene set up, ready to be played.

        Raises:
            ValueError: if none of the seed's candidates can be.
        """
        last: Exception | None = None
        for candidate in self._candidates(name, seed):
            try:
                scene = self._known.get((name, seed)) or self._screened(name, candidate)
                task = self._set_up(name, scene.seed)
            # What a task's own code raises when a scene or the expert's plan fails can be anything;
            # the published protocol goes on to the next seed, and so does this.
            except Exception as error:  # noqa: BLE001
                last = error
                continue
            if self._runtime.begin(task, scene.kept):
                self._known[name, seed] = scene
                return task, scene
            self.close(task)
        raise ValueError(
            f"task {name}, seed {seed}: none of {_CANDIDATES} scenes can be played; the last "
            f"said: {last!r}"
        ) from last

    def sentence(self, name: str, scene: Scene) -> str:
        """The instruction of a scene, always the same."""
        outside = random.getstate()
        random.seed(scene.seed)
        try:
            return self._runtime.sentences(name, scene.info)[0]
        finally:
            random.setstate(outside)

    def close(self, task: Any) -> None:
        """Free a scene."""
        self._runtime.end(task)

    def _candidates(self, name: str, seed: int) -> Iterator[int]:
        known = self._known.get((name, seed))
        if known is not None:
            yield known.seed
            return
        for attempt in range(_CANDIDATES):
            yield seed_of(seed) + attempt * _STRIDE

    def _screened(self, name: str, seed: int) -> Scene:
        """The scene, if it may be played.

        Raises:
            Exception: of any kind, if it may not.
        """
        task = self._set_up(name, seed)
        try:
            if not self._expert_check:
                return Scene(seed, task.get_info())
            info = task.play_once()["info"]
            # Looks at the scene, so before it is closed.
            if not (task.plan_success and task.check_success()):
                raise ValueError(f"the expert fails on scene {seed}")
            return Scene(seed, info, deepcopy(self._runtime.kept(task)))
        finally:
            self.close(task)

    def _set_up(self, name: str, seed: int) -> Any:
        task = self._runtime.new_task(name)
        try:
            task.setup_demo(now_ep_num=0, seed=seed, is_test=True, **self._runtime.arguments(name))
        except Exception:
            self.close(task)
            raise
        return task
