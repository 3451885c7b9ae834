"""Every tabletop task as a registered Gymnasium environment: `vlarl/Tabletop-<task>-v0`.

Importing this module registers them. One environment each; many at once are what `suite.py` is for.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.suite import MAX_STEPS, TabletopSuite
from envservers.tabletop.tasks import TASKS, find_task
from vlarl.types import EpisodeStart, TimeStep

_SLOT = np.zeros(1, np.int64)


class TabletopGymEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """One tabletop task behind Gymnasium's interface.

    The observation holds an image of each camera, `uint8 [size, size, 3]`, and `state`,
    `float32 [11]`; the action is one control step, `float32 [5]`. `info` carries the instruction
    and `success`.

    Args:
        task: one of `envservers.tabletop.TASKS`.
        image_size: width and height of the images.
        max_steps: control steps after which an episode is truncated.
        render_mode: None or "rgb_array" (the `ego` camera).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        image_size: int = 64,
        max_steps: int = MAX_STEPS,
        render_mode: str | None = None,
    ) -> None:
        """Build a suite of one slot."""
        self.render_mode = render_mode
        self._task = find_task(task).name
        self._suite = TabletopSuite(1, image_size=image_size, max_steps=max_steps)
        spec = self._suite.spec
        # As a suite (`gym:...`) it is the same robot, with the same channels.
        self.metadata = {
            **self.metadata,
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
        """The `ego` image, if `render_mode` asks for one."""
        if self.render_mode is None:
            return None
        return self._suite.renderer.render(_SLOT, "ego")[0]

    def close(self) -> None:
        """Free the suite."""
        self._suite.close()

    @staticmethod
    def _observation(now: TimeStep) -> dict[str, NDArray[Any]]:
        return {**{name: image[0] for name, image in now.images.items()}, "state": now.state[0]}

    @staticmethod
    def _info(now: TimeStep) -> dict[str, Any]:
        return {"instruction": now.instruction[0], "success": bool(now.success[0])}


for _task in TASKS:
    gymnasium.register(
        id=f"vlarl/Tabletop-{_task.name}-v0",
        entry_point="envservers.tabletop.gym_env:TabletopGymEnv",
        kwargs={"task": _task.name},
    )
