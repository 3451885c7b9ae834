"""RoboCasa-GR1 as a suite: 24 tabletop tasks of a humanoid's arms, hands and waist.

See docs/suites/robocasa-gr1.md. The class is read where the simulator is not installed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from envservers.options import check_choice, check_least
from envservers.robocasa_gr1.channels import channels
from envservers.robocasa_gr1.simulator import Gr1Simulator
from envservers.robocasa_gr1.tasks import MAX_STEPS, find_tasks
from envservers.slot_suite import SlotSuite
from vlarl.errors import UserError
from vlarl.types import CameraSpec, EnvSpec

CONTROL_HZ = 20.0
PICTURES = ("crop", "whole")
SCENES = (
    "objects/sketchfab",
    "objects/lightwheel",
    "objects/objaverse",
    "fixtures/microwaves/gray/visuals",
)
"""Folders that the package leaves to its download command, below its own."""


class RobocasaGr1Suite(SlotSuite):
    """`num_envs` environments; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: slots.
        image_size: width and height of the picture, in pixels.
        tasks: names of tasks or groups (`put-away`, `move`, `tabletop-24`); None: all 24.
        max_steps: control steps of an episode; 0: the published 720.
        picture: `crop`, what public datasets of these tasks show, or `whole`, all that the camera
            sees.
        terminate_on_success: whether achieving the goal ends the episode, and the chunk.

    Raises:
        ValueError: for an unknown task or picture, or a number out of range.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        picture: str = "crop",
        terminate_on_success: bool = True,
    ) -> None:
        check_least(1, image_size=image_size)
        check_least(0, max_steps=max_steps)
        check_choice("picture", picture, PICTURES)
        own = channels()
        spec = EnvSpec(
            suite="robocasa-gr1",
            tasks=find_tasks(tasks),
            cameras=(CameraSpec("ego", image_size, image_size),),
            channels=own,
            embodiment="fourier_gr1_joint_hand",
            control_hz=CONTROL_HZ,
            max_steps=max_steps or MAX_STEPS,
            state_dim=len(own),
        )
        super().__init__(
            num_envs,
            spec,
            lambda: Gr1Simulator(image_size, picture == "crop"),
            terminate_on_success,
        )


def check(suite: RobocasaGr1Suite) -> None:
    """Look for the scenes, which no package index has.

    Raises:
        UserError: if a folder of them is missing, with the command that fetches it.
    """
    found = importlib.util.find_spec("robocasa_gr1")
    if found is None or found.origin is None:
        return
    assets = Path(found.origin).parent / "models" / "assets"
    missing = [name for name in SCENES if not (assets / name).is_dir()]
    if missing:
        raise UserError(
            f"suite 'robocasa-gr1' lacks {', '.join(missing)} in {assets}: run "
            f"{sys.executable} -m robocasa_gr1.scripts.download_tabletop_assets -y"
        )
