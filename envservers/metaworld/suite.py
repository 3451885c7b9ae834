"""MetaWorld as a suite: 50 tasks of one Sawyer arm, language, four-channel delta control.

The class is read where MetaWorld is not installed; its simulator is imported by `load`, or when a
slot is first reset. See docs/suites/metaworld.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from envservers import opengl
from envservers.metaworld.groups import find_tasks
from envservers.options import check_choice, check_least
from envservers.slot_suite import SlotSuite
from vlarl.types import CameraSpec, Channel, EnvSpec

if TYPE_CHECKING:
    from envservers.metaworld.simulator import MetaWorldSimulator, Theater

STEP_HZ = 80.0
"""MetaWorld's steps a second: five of MuJoCo's, 2.5 ms each."""
EPISODE = 500
"""MetaWorld's steps of an episode."""
EMBODIMENTS = {
    1: "metaworld_sawyer",
    2: "metaworld_sawyer_40hz",
    4: "metaworld_sawyer_20hz",
}
"""Steps of MetaWorld's for one of ours -> what the robot is to a policy."""
CAMERAS = ("ego", "cam_right_wrist")
RENDERERS = ("tuned", "default")
STATE_DIM = 4
_REACH = 0.01
"""Meters that the hand is sent at most by one of MetaWorld's steps, along each axis."""
_SPARE = 4
"""Scenes that a process keeps beyond one for each slot, for tasks that nobody plays now."""


class MetaWorldSuite(SlotSuite):
    """`num_envs` environments of MetaWorld; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: slots.
        image_size: width and height of every picture, in pixels.
        tasks: names of tasks (`reach-v3`), benchmarks (`MT10`, `MT50`, `ML10-train`, `ML10-test`,
            `ML45-train`, `ML45-test`) or difficulties (`easy`, `medium`, `hard`, `very-hard`);
            None: all 50.
        max_steps: control steps of an episode; 0: those that make MetaWorld's 500.
        cameras: of `ego` (MetaWorld's `corner2`, upright) and `cam_right_wrist` (`gripperPOV`).
        renderer: `tuned` (no shadows, reflections and multisampling) or `default`, MetaWorld's.
        close_up: whether `corner2` stands where public MT50 datasets have it, nearer the table.
        action_repeat: MetaWorld's steps for each control step: 1, 2 or 4 (80, 40 or 20 Hz).
        terminate_on_success: whether achieving the goal ends the episode, and the chunk.

    Raises:
        ValueError: for an unknown task, camera, renderer or repeat, or a number out of range.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        cameras: Sequence[str] = CAMERAS,
        renderer: str = "tuned",
        close_up: bool = False,
        action_repeat: int = 1,
        terminate_on_success: bool = True,
    ) -> None:
        check_least(1, image_size=image_size)
        check_least(0, max_steps=max_steps)
        if action_repeat not in EMBODIMENTS:
            allowed = ", ".join(map(str, EMBODIMENTS))
            raise ValueError(f"action_repeat = {action_repeat}: choose one of {allowed}")
        check_choice("renderer", renderer, RENDERERS)
        if not cameras or set(cameras) - set(CAMERAS) or len(set(cameras)) != len(cameras):
            raise ValueError(f"cameras = {list(cameras)}: choose of {', '.join(CAMERAS)}")
        spec = EnvSpec(
            suite="metaworld",
            tasks=find_tasks(tasks),
            cameras=tuple(CameraSpec(name, image_size, image_size) for name in cameras),
            channels=_channels(action_repeat),
            embodiment=EMBODIMENTS[action_repeat],
            control_hz=STEP_HZ / action_repeat,
            max_steps=max_steps or EPISODE // action_repeat,
            state_dim=STATE_DIM,
        )
        super().__init__(num_envs, spec, self._simulator_of_one, terminate_on_success)
        self._action_repeat = action_repeat
        self._drawing = image_size, tuple(cameras), renderer == "tuned", close_up
        self._theater: Theater | None = None
        self._playing = 0

    def _simulator_of_one(self) -> MetaWorldSimulator:
        # MuJoCo decides when it is imported.
        opengl.choose()
        from envservers.metaworld.simulator import MetaWorldSimulator, Theater

        if self._theater is None:
            # With fewer than slots they would be rebuilt at every chunk.
            self._theater = Theater(self.num_envs + _SPARE, *self._drawing)
        self._playing += 1
        return MetaWorldSimulator(
            self._theater, self._action_repeat, self.terminate_on_success, self._one_less
        )

    def _one_less(self) -> None:
        self._playing -= 1
        if not self._playing and self._theater is not None:
            self._theater.close()
            self._theater = None


def _channels(action_repeat: int) -> tuple[Channel, ...]:
    reach = _REACH * action_repeat
    moves = (
        Channel(f"delta_{axis}", "m", "delta_position", -reach, reach) for axis in ("x", "y", "z")
    )
    # -1 opens with full force, 1 closes.
    return (*moves, Channel("gripper", "1", "gripper", -1.0, 1.0))
