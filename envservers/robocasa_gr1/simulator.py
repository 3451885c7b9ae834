"""One environment of RoboCasa-GR1, by its Gymnasium interface; draws at a chunk's end alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envservers import opengl
from envservers.plain_simulator import PlainSimulator
from envservers.resize import resized
from envservers.robocasa_gr1.channels import PARTS
from envservers.robocasa_gr1.tasks import ROBOT
from envservers.simulator import Outcome
from vlarl.types import EpisodeStart

_CAMERA, _WIDTH, _HEIGHT = "egoview", 1280, 800
"""The head camera, as the benchmark draws it."""
_COLLISION_GROUP, _VISUAL_GROUP = 0, 1
_MOST_SEEDS = 2**32


class Gr1Simulator(PlainSimulator):
    """Implements `envservers.simulator.Simulator`.

    Args:
        size: of the picture, both sides, in pixels.
        crop: whether the picture is the benchmark's cropped one (`..._bg_crop_pad_...`), else the
            whole one.
    """

    def __init__(self, size: int, crop: bool) -> None:
        # MuJoCo decides when it is imported.
        opengl.choose()
        import gymnasium
        import robocasa_gr1.utils.gym_utils.gymnasium_groot  # noqa: F401, registers the tasks

        self._make: Any = gymnasium.make
        self._size, self._crop = size, crop
        self._task, self._env = "", None
        self._seen: dict[str, Any] = {}

    def reset(self, start: EpisodeStart) -> str:
        """Begin the episode; see `Simulator.reset`.

        Raises:
            ValueError: for a seed below 0 or beyond what the simulator takes.
        """
        if not 0 <= start.seed < _MOST_SEEDS:
            raise ValueError(f"seed = {start.seed}: must be from 0 to {_MOST_SEEDS - 1}")
        if start.task != self._task:
            self.close()
            # Pictures are drawn when they are asked for: the wrapper would draw one a step.
            name = f"gr1_unified/{start.task}_{ROBOT}_Env"
            self._env = self._make(name, enable_render=False, disable_env_checker=True).unwrapped
            self._task = start.task
        wrapper = self._opened()
        # Scenes are drawn from a generator of the environment's own, which `reset` leaves alone;
        # it is set in place, for whatever holds on to it.
        state = np.random.default_rng(start.seed).bit_generator.state
        wrapper.env.rng.bit_generator.state = state
        self._seen, _ = wrapper.reset(seed=start.seed)
        return str(wrapper.env.get_ep_meta()["lang"])

    def step(self, action: NDArray[np.float32]) -> Outcome:
        """One control step of all parts."""
        parts = {
            f"action.{part}": action[channels].astype(np.float64)
            for part, channels in PARTS.items()
        }
        self._seen, reward, _, _, info = self._opened().step(parts)
        return Outcome(float(reward), bool(info["success"]))

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """What the head camera sees now, cut and padded by the benchmark's own function."""
        wrapper = self._opened()
        simulation = wrapper.env.sim
        if simulation._render_context_offscreen is None:
            # Each reset builds another simulation, and none draws unless asked to.
            from robosuite.utils.binding_utils import MjRenderContextOffscreen

            context = MjRenderContextOffscreen(simulation, wrapper.env.render_gpu_device_id)
            context.vopt.geomgroup[_COLLISION_GROUP] = 0
            context.vopt.geomgroup[_VISUAL_GROUP] = 1
        # OpenGL's rows begin at the bottom.
        frame = simulation.render(width=_WIDTH, height=_HEIGHT, camera_name=_CAMERA)[::-1]
        cut = wrapper.process_img_cotrain if self._crop else wrapper.process_img
        return {"ego": resized(cut(np.ascontiguousarray(frame)), self._size, self._size)}

    def state(self) -> NDArray[np.float32]:
        """[29] positions of the joints that an action names, in its order; of a finger, one."""
        return np.concatenate([self._seen[f"state.{part}"] for part in PARTS]).astype(np.float32)

    def info(self) -> dict[str, float]:
        """Nothing: the benchmark reports success alone."""
        return {}

    def close(self) -> None:
        """Close the task's environment."""
        if self._env is not None:
            self._env.close()
        self._task, self._env = "", None

    def _opened(self) -> Any:
        assert self._env is not None
        return self._env
