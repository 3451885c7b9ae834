"""One slot of ManiSkill: an episode at a time, in a scene or a row that is its own meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.batch import Row
from envservers.maniskill.expert import Expert, Progress
from envservers.maniskill.kept import unpacked
from envservers.maniskill.scene import Result, Scene
from envservers.maniskill.tasks import Task
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart

_SEEDS = 2**32
"""NumPy's generators, which ManiSkill seeds, take those below."""


Place = Scene | Row
"""Where an episode plays."""


class Places(Protocol):
    """Scenes or rows."""

    def take(self, task: str) -> Any:
        """One of the task that nobody plays in."""
        ...

    def give(self, place: Any) -> None:
        """Let the next have it."""
        ...


class ManiSkillSimulator:
    """Implements `envservers.simulator.Simulator`.

    Args:
        places: `Scenes` or `Batches`, shared by the slots of the process.
        tasks: that there are.
        image_size: of the pictures, whatever ManiSkill draws.
        info_names: what `info` holds of ManiSkill's; 0 where a task has none of it.
        options_of: ManiSkill's `reset` options for a start.
        on_close: called once when this one is closed.
        expert: of the episodes, if there is one.
    """

    def __init__(
        self,
        places: Places,
        tasks: Mapping[str, Task],
        image_size: int,
        info_names: Sequence[str],
        options_of: Callable[[EpisodeStart], Mapping[str, Any]],
        on_close: Callable[[], None],
        expert: Expert | None = None,
    ) -> None:
        self._places, self._tasks, self._size = places, tasks, image_size
        self._options_of, self._on_close, self._expert = options_of, on_close, expert
        self._info = dict.fromkeys(info_names, 0.0)
        self._playing: Place | None = None
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
            self._leave()
        if self._playing is None:
            self._playing = self._places.take(start.task)
        self._start, self._played = start, []
        if self._expert is not None:
            self._expert.begin(start.task, start.seed)
        self._remember(self._playing.begin(start.seed, self._options_of(start)))
        return self._tasks[start.task].instruction

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step."""
        return self.after(action, self.place.step(action))

    def after(self, action: NDArray[np.float32], result: Result) -> Outcome:
        """What a control step led to that was taken at `place`."""
        self._played.append(np.array(action, np.float32))
        if self._expert is not None:
            self._expert.look_anew()
        self._remember(result.info)
        return Outcome(
            result.reward, bool(result.info["success"]), failed=bool(result.info.get("fail", 0.0))
        )

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Draw the cameras now."""
        return {view: _sized(seen, self._size) for view, seen in self.place.draw().items()}

    def state(self) -> NDArray[np.float32]:
        """[8] position and rotation (axis times angle) of the hand at the base, two fingers."""
        return self.place.state()

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
        return self._expert.act(*self.place.poses(), self.place.pose_of)

    def snapshot(self) -> bytes:
        """Start, the expert's progress, and what leads to now.

        On the processor these are the actions so far, as a state leaves contacts out. A GPU does
        not play the same twice, so there it is the state.
        """
        place = self.place
        start = [self._start.task, self._start.seed, self._start.instruction]
        progress = self._expert.progress if self._expert is not None else Progress()
        is_state = isinstance(place, Row)
        head = json.dumps([start, is_state, len(self._played), progress, self._info]).encode()
        played = b"".join(action.tobytes() for action in self._played)
        body = place.kept().packed() if isinstance(place, Row) else played
        return len(head).to_bytes(4, "little") + head + body

    def restore(self, blob: bytes) -> None:
        """Bring the episode to where `snapshot` returned `blob`.

        Raises:
            ValueError: for a snapshot of the other kind of physics.
        """
        begin = 4 + int.from_bytes(blob[:4], "little")
        start, is_state, count, progress, info = json.loads(blob[4:begin])
        self.reset(EpisodeStart(*start))
        if is_state != isinstance(self.place, Row):
            made = "gpu" if is_state else "cpu"
            raise ValueError(f"the snapshot was made with physics = {made}: restore it with that")
        if isinstance(self.place, Row):
            self.place.put(unpacked(blob[begin:]))
            self._info = info
        else:
            for action in np.frombuffer(blob[begin:], np.float32).reshape(count, -1):
                self.step(action)
        if self._expert is not None:
            self._expert.progress = Progress(*progress)

    def close(self) -> None:
        """Leave the place."""
        self._leave()
        self._on_close()

    @property
    def place(self) -> Place:
        """Where the episode plays.

        Raises:
            ValueError: before the first.
        """
        if self._playing is None:
            raise ValueError("no running episode: reset first")
        return self._playing

    def _leave(self) -> None:
        if self._playing is not None:
            self._places.give(self._playing)
            self._playing = None

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
