"""One slot of ManiSkill: an episode at a time, in a scene that is its own while it plays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.expert import Expert, Progress
from envservers.maniskill.scene import Scene, Scenes
from envservers.maniskill.tasks import Task
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart

_SEEDS = 2**32
"""NumPy's generators, which ManiSkill seeds, take those below."""


class ManiSkillSimulator:
    """Implements `envservers.simulator.Simulator`.

    Args:
        scenes: shared by the slots of the process.
        tasks: that there are.
        image_size: of the pictures, whatever ManiSkill draws.
        info_names: what `info` holds of ManiSkill's; 0 where a task has none of it.
        options_of: ManiSkill's `reset` options for a start.
        on_close: called once when this one is closed.
        expert: of the episodes, if there is one.
    """

    def __init__(
        self,
        scenes: Scenes,
        tasks: Mapping[str, Task],
        image_size: int,
        info_names: Sequence[str],
        options_of: Callable[[EpisodeStart], Mapping[str, Any]],
        on_close: Callable[[], None],
        expert: Expert | None = None,
    ) -> None:
        self._scenes, self._tasks, self._size = scenes, tasks, image_size
        self._options_of, self._on_close, self._expert = options_of, on_close, expert
        self._info = dict.fromkeys(info_names, 0.0)
        self._playing: Scene | None = None
        self._start = EpisodeStart("", 0)
        self._played: list[NDArray[np.float32]] = []

    def reset(self, start: EpisodeStart) -> str:
        """Begin the episode; see `Simulator.reset`.

        Raises:
            ValueError: for a seed that ManiSkill cannot take.
        """
        if not 0 <= start.seed < _SEEDS:
            raise ValueError(f"seed = {start.seed}: must be at least 0 and below {_SEEDS}")
        if self._playing is not None and self._playing.task != start.task:
            self._scenes.give(self._playing)
            self._playing = None
        if self._playing is None:
            self._playing = self._scenes.take(start.task)
        self._start, self._played = start, []
        if self._expert is not None:
            self._expert.begin(start.task, start.seed)
        self._remember(self._playing.begin(start.seed, self._options_of(start)))
        return self._tasks[start.task].instruction

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step."""
        result = self._scene().step(action)
        self._played.append(np.array(action, np.float32))
        if self._expert is not None:
            self._expert.look_anew()
        self._remember(result.info)
        return Outcome(
            result.reward, bool(result.info["success"]), failed=bool(result.info.get("fail", 0.0))
        )

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Draw the cameras now."""
        return {view: _sized(seen, self._size) for view, seen in self._scene().draw().items()}

    def state(self) -> NDArray[np.float32]:
        """[8] position and rotation (axis times angle) of the hand at the base, two fingers."""
        return self._scene().state()

    def info(self) -> dict[str, float]:
        """ManiSkill's figures of now."""
        return self._info

    def expert_action(self) -> NDArray[np.float32]:
        """[7] the next step on the way that ManiSkill's planner found, or that is drawn by us.

        Raises:
            NotImplementedError: of Simpler-WidowX, which has no expert.
        """
        if self._expert is None:
            raise NotImplementedError("there is no expert of ManiSkill's scenes of the WidowX")
        scene = self._scene()
        return self._expert.act(*scene.poses(), scene.pose_of)

    def snapshot(self) -> bytes:
        """Start, actions so far, the expert's progress: `get_state` leaves contacts out."""
        self._scene()
        start = [self._start.task, self._start.seed, self._start.instruction]
        progress = self._expert.progress if self._expert is not None else Progress()
        head = json.dumps([start, len(self._played), progress]).encode()
        return len(head).to_bytes(4, "little") + head + b"".join(a.tobytes() for a in self._played)

    def restore(self, blob: bytes) -> None:
        """Play the episode up to where `snapshot` returned `blob`."""
        begin = 4 + int.from_bytes(blob[:4], "little")
        start, count, progress = json.loads(blob[4:begin])
        self.reset(EpisodeStart(*start))
        for action in np.frombuffer(blob[begin:], np.float32).reshape(count, -1):
            self.step(action)
        if self._expert is not None:
            self._expert.progress = Progress(*progress)

    def close(self) -> None:
        """Close the scene."""
        if self._playing is not None:
            self._playing.close()
            self._playing = None
        self._on_close()

    def _scene(self) -> Scene:
        if self._playing is None:
            raise ValueError("no running episode: reset first")
        return self._playing

    def _remember(self, info: Mapping[str, float]) -> None:
        self._info = {name: info.get(name, 0.0) for name in self._info}


def _sized(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[size, size, 3], the whole picture squeezed into it as published evaluations do."""
    if picture.shape[:2] == (size, size):
        return picture
    # Comes with ManiSkill; this module is read where neither is.
    from PIL import Image

    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.uint8)
