"""One task of a batched suite behind Gymnasium's interface. Leaves out which: see each suite."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from vlarl.env_protocol import Suite
from vlarl.types import EpisodeStart, TimeStep

_SLOT = np.zeros(1, np.int64)


class SuiteEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """The only slot of a suite, always on the same task.

    The observation holds an image of each camera, `uint8 [size, size, 3]`, and `state`, float32;
    the action is one control step. `info` carries the instruction and `success`.

    Args:
        suite: of one slot; closed with the environment.
        task: one of its tasks.
        render_mode: None or "rgb_array" (the first camera).
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, suite: Suite, task: str, render_mode: str | None = None) -> None:
        """Take the suite."""
        self.render_mode = render_mode
        self._task, self._suite = task, suite
        self._seen: NDArray[np.uint8] | None = None
        spec = suite.spec
        # As a suite (`gym:...`) it is the same robot, with the same channels.
        self.metadata = {
            **self.metadata,
            "render_fps": round(spec.control_hz),
            "embodiment": spec.embodiment,
            "channels": spec.channels,
        }
        spaces: dict[str, gymnasium.Space[Any]] = {
            camera.name: gymnasium.spaces.Box(0, 255, (camera.height, camera.width, 3), np.uint8)
            for camera in spec.cameras
        }
        spaces["state"] = gymnasium.spaces.Box(-8.0, 8.0, (spec.state_dim,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(
            np.array([channel.low for channel in spec.channels], np.float32),
            np.array([channel.high for channel in spec.channels], np.float32),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start an episode; `seed` decides this and, through `np_random`, the following scenes."""
        super().reset(seed=seed)
        scene = int(self.np_random.integers(2**31))
        now = self._suite.reset(_SLOT, [EpisodeStart(self._task, scene)])
        return self._observation(now), self._info(now)

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Execute one control step."""
        now = self._suite.step(_SLOT, np.asarray(action, np.float32)[None, None])
        ended = bool(now.terminated[0]), bool(now.truncated[0])
        return self._observation(now), float(now.reward[0]), *ended, self._info(now)

    def render(self) -> NDArray[np.uint8] | None:
        """What the first camera saw last, if `render_mode` asks for it."""
        return None if self.render_mode is None else self._seen

    def close(self) -> None:
        """Free the suite."""
        self._suite.close()

    def _observation(self, now: TimeStep) -> dict[str, NDArray[Any]]:
        self._seen = now.images[self._suite.spec.cameras[0].name][0]
        return {**{name: image[0] for name, image in now.images.items()}, "state": now.state[0]}

    @staticmethod
    def _info(now: TimeStep) -> dict[str, Any]:
        privileged = {name: float(values[0]) for name, values in now.info.items()}
        return {
            "instruction": now.instruction[0],
            "success": bool(now.success[0]),
            **privileged,
        }
