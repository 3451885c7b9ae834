"""Past frames of the first camera, which a policy may be shown as a video. Numpy only.

They are the history windows of the paper's section 2.1, at the 2 Hz of section 3.2.4. Which frames
is decided here, once, for datasets and environments alike; who plays an episode keeps them in a
`FrameMemory`. Before an episode's first frame nothing was seen: that frame is repeated, so that a
history always has the same number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PastFrames:
    """Which past frames a policy is shown."""

    camera: str
    """The contract's first one, whose frames environments return for every control step."""
    steps_back: tuple[int, ...]
    """Control steps before the present, oldest first; all at least 1."""

    @staticmethod
    def at(camera: str, frames: int, history_hz: float, control_hz: float) -> PastFrames:
        """`frames` of them at `history_hz`, each the nearest that there is at `control_hz`."""
        stride = control_hz / history_hz
        return PastFrames(camera, tuple(int(stride * k + 0.5) for k in range(frames, 0, -1)))

    def before(self, frames: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
        """[B, n] the past frames of `frames` [B], whose episodes begin at `first` [B]."""
        back = frames[:, None] - np.array(self.steps_back)
        return np.maximum(back, first[:, None])


class FrameMemory:
    """The last frames of one client's running episodes, one row for each slot."""

    def __init__(self, past: PastFrames, num_envs: int) -> None:
        self.past = past
        self._num_envs = num_envs
        self._places = np.array([-1 - steps for steps in past.steps_back])
        self._frames: NDArray[np.uint8] | None = None
        """[num_envs, reach + 1, height, width, 3], the present frame last."""

    def reset(self, slots: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
        """Episodes began in `slots` [n] and show `images` [n, height, width, 3]."""
        if self._frames is None:
            reach = max(self.past.steps_back)
            self._frames = np.zeros((self._num_envs, reach + 1, *images.shape[1:]), np.uint8)
        self._frames[slots] = images[:, None]

    def advance(self, slots: NDArray[np.int64], frames: Sequence[NDArray[np.uint8]]) -> None:
        """Control steps were executed in `slots` [n]: `frames` has [executed, h, w, 3] of each."""
        assert self._frames is not None
        for slot, new in zip(slots, frames, strict=True):
            kept = np.concatenate([self._frames[slot], new])
            self._frames[slot] = kept[-self._frames.shape[1] :]

    def frames(self) -> NDArray[np.uint8]:
        """[num_envs, n, height, width, 3] the history of every slot, oldest first."""
        assert self._frames is not None
        return self._frames[:, self._places]

    def state(self) -> NDArray[np.uint8]:
        """All that is remembered; empty before the first reset."""
        return np.zeros(0, np.uint8) if self._frames is None else self._frames.copy()

    def load_state(self, state: NDArray[np.uint8]) -> None:
        """Inverse of `state`."""
        self._frames = state.copy() if len(state) else None
