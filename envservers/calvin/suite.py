"""CALVIN as a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envservers import environments
from envservers.calvin.repository import Repository, check_repository
from envservers.calvin.simulator import ACTION_SCALE, CAMERAS, CalvinSimulator
from envservers.calvin.tasks import CHAIN, CHAIN_LENGTH, SUBTASK_STEPS, find_tasks
from envservers.options import check_least
from envservers.slot_suite import SlotSuite
from vlarl.types import CameraSpec, Channel, EnvSpec

CONTROL_HZ = 30.0
_STATE_DIM = 15
_CHANNELS = (
    ("delta_x", "m", "delta_position"),
    ("delta_y", "m", "delta_position"),
    ("delta_z", "m", "delta_position"),
    ("delta_roll", "rad", "rotation_euler"),
    ("delta_pitch", "rad", "rotation_euler"),
    ("delta_yaw", "rad", "rotation_euler"),
)


class CalvinSuite(SlotSuite):
    """`num_envs` slots of CALVIN's table.

    Args:
        num_envs: slots.
        image_size: of both cameras, in pixels.
        tasks: `chain`, five tasks one after the other, or single tasks (default: chain).
        max_steps: control steps until truncation (0: 360 for each task of an episode).
        code: clone of CALVIN's repository (default: where `vlarl suite list` says).
        dataset: folder that describes cameras and scene in `.hydra/merged_config.yaml` (default:
            task_ABC_D's validation, which is scene D).
        terminate_on_success: whether the last task's success ends the episode.

    Raises:
        UserError: for an unknown task, or an image size that is not positive.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        code: str = "",
        dataset: str = "",
        terminate_on_success: bool = True,
    ) -> None:
        names = find_tasks(tasks)
        check_least(1, image_size=image_size)
        check_least(0, max_steps=max_steps)
        arm = tuple(
            Channel(*described, -float(bound), float(bound))
            for described, bound in zip(_CHANNELS, ACTION_SCALE, strict=True)
        )
        spec = EnvSpec(
            suite="calvin",
            tasks=names,
            cameras=tuple(CameraSpec(view, image_size, image_size) for view in CAMERAS),
            channels=(*arm, Channel("gripper", "1", "gripper", -1.0, 1.0)),
            embodiment="calvin_panda",
            control_hz=CONTROL_HZ,
            max_steps=max_steps or SUBTASK_STEPS * (CHAIN_LENGTH if CHAIN in names else 1),
            state_dim=_STATE_DIM,
        )
        folder = Path(code).expanduser() if code else environments.assets("calvin")
        own = folder / "dataset" / "task_ABC_D" / "validation"
        self.repository = Repository(folder, Path(dataset).expanduser() if dataset else own)
        super().__init__(
            num_envs,
            spec,
            lambda: CalvinSimulator(self.repository, image_size),
            terminate_on_success,
        )


def check(suite: CalvinSuite) -> None:
    """Look for the clone and the dataset's description.

    Raises:
        UserError: if they are not there, with the commands.
    """
    check_repository(suite.repository)
