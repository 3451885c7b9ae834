"""LIBERO as a suite: its spec, and simulators that share scenes."""

from __future__ import annotations

from collections.abc import Sequence

from envservers.libero.camera import CAMERAS
from envservers.libero.scene import CONTROL_HZ, Scene
from envservers.libero.simulator import ACTION_SCALE, LiberoSimulator
from envservers.libero.stage import Stage
from envservers.libero.tasks import chosen, group_of
from envservers.options import check_choice, check_least
from envservers.slot_suite import SlotSuite
from envservers.suite_table import SUITES
from vlarl.types import CameraSpec, Channel, EnvSpec

_CHANNELS = (
    ("delta_x", "m", "delta_position"),
    ("delta_y", "m", "delta_position"),
    ("delta_z", "m", "delta_position"),
    ("turn_x", "rad", "rotation_axis_angle"),
    ("turn_y", "rad", "rotation_axis_angle"),
    ("turn_z", "rad", "rotation_axis_angle"),
    ("gripper", "1", "gripper"),
)
_STATE_DIM = 8
_SETTINGS = ("tuned", "default")


class LiberoSuite(SlotSuite):
    """`num_envs` slots of LIBERO's tasks.

    Args:
        num_envs: slots.
        image_size: of both cameras, in pixels.
        split: a group of tasks (spatial, object, goal, long, 90), or `all`.
        tasks: instead of a split: names, with or without their group, or groups.
        variant: of LIBERO-PRO: see `docs/suites/libero.md`; empty: LIBERO itself.
        max_steps: control steps until truncation (0: the published limit of each task's group).
        renderer: `tuned`, or `default`, as the benchmark draws.
        physics: `tuned`, or `default`, which is bit for bit the benchmark's own.
        scenes: tasks whose scene is kept in memory (0: all of the chosen ones, at most 10
            or, with more slots, one for each).
        terminate_on_success: whether achieving the goal ends the episode.

    Raises:
        UserError: for a task, split, variant or setting that there is none of.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        split: str = "spatial",
        tasks: Sequence[str] | None = None,
        variant: str = "",
        max_steps: int = 0,
        renderer: str = "tuned",
        physics: str = "tuned",
        scenes: int = 0,
        terminate_on_success: bool = True,
    ) -> None:
        names = chosen(split, tasks, variant)
        check_choice("renderer", renderer, _SETTINGS)
        check_choice("physics", physics, _SETTINGS)
        check_least(1, image_size=image_size)
        check_least(0, max_steps=max_steps, scenes=scenes)
        limits = {name: max_steps or group_of(name).max_steps for name in names}
        spec = EnvSpec(
            suite="libero",
            tasks=names,
            cameras=tuple(CameraSpec(view, image_size, image_size) for view in CAMERAS),
            channels=tuple(
                Channel(*described, -float(bound), float(bound))
                for described, bound in zip(_CHANNELS, ACTION_SCALE, strict=True)
            ),
            embodiment="franka_panda_eef",
            control_hz=CONTROL_HZ,
            max_steps=max(limits.values()),
            state_dim=_STATE_DIM,
        )

        def scene(task: str) -> Scene:
            return Scene(task, variant, image_size, renderer == "tuned", physics == "tuned")

        # Where each slot plays another task, fewer scenes than slots would all be made anew in
        # each round: seconds for every one.
        self._stage = Stage(scene, scenes or SUITES["libero"].kept_scenes(len(names), num_envs))

        def simulator() -> LiberoSimulator:
            return LiberoSimulator(self._stage, variant, len(names))

        super().__init__(num_envs, spec, simulator, terminate_on_success, limits)

    def load(self) -> None:
        """Make the first task's scene now, so that what is missing shows before anybody waits."""
        self._stage.scene(self.spec.tasks[0])

    def close(self) -> None:
        """Close every scene."""
        super().close()
        self._stage.close()
