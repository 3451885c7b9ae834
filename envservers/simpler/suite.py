"""SimplerEnv as a suite, of one of its two robots."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from envservers import environments
from envservers.options import check_least
from envservers.simpler.simulator import SimplerSimulator
from envservers.simpler.tasks import TASKS, chosen
from envservers.slot_suite import SlotSuite
from vlarl.errors import UserError
from vlarl.types import CameraSpec, Channel, EnvSpec

_STATE_DIM = 7
_NAMES = ("delta_x", "delta_y", "delta_z", "delta_roll", "delta_pitch", "delta_yaw")
_BOUNDS = {"widowx": (0.05, 0.25, 0.0), "google_robot": (1.0, 1.5708, -1.0)}
"""Robot -> meters, radians, the gripper's least: those of its embodiment's file."""


class SimplerSuite(SlotSuite):
    """`num_envs` slots of SimplerEnv's prepackaged tasks.

    Args:
        num_envs: slots.
        image_size: of the picture, in pixels.
        robot: `widowx` or `google_robot`, for all of its tasks.
        tasks: instead of a robot: names, all of one robot.
        max_steps: control steps until truncation (0: those of the longest task; each ends after its
            own in any case).
        code: clone of SimplerEnv's repository (default: where `vlarl suite list` says).
        terminate_on_success: whether achieving the goal ends the episode; the published evaluation
            counts success at its end only (false).

    Raises:
        UserError: for a task or robot that there is none of, or an image size that is not positive.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        robot: str = "widowx",
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        code: str = "",
        terminate_on_success: bool = True,
    ) -> None:
        names, own = chosen(robot, tasks)
        check_least(1, image_size=image_size)
        check_least(0, max_steps=max_steps)
        move, turn, least = _BOUNDS[own.name]
        kinds = [("m", "delta_position", move)] * 3 + [("rad", "rotation_euler", turn)] * 3
        arm = tuple(
            Channel(name, unit, kind, -bound, bound)
            for name, (unit, kind, bound) in zip(_NAMES, kinds, strict=True)
        )
        limits = {name: max_steps or TASKS[name].steps for name in names}
        spec = EnvSpec(
            suite="simpler-env",
            tasks=names,
            cameras=(CameraSpec("ego", image_size, image_size),),
            channels=(*arm, Channel("gripper", "1", "gripper", least, 1.0)),
            embodiment=own.embodiment,
            control_hz=own.control_hz,
            max_steps=max(limits.values()),
            state_dim=_STATE_DIM,
        )
        self.code = Path(code).expanduser() if code else environments.assets("simpler-env")

        def simulator() -> SimplerSimulator:
            return SimplerSimulator(image_size, len(names))

        super().__init__(num_envs, spec, simulator, terminate_on_success, limits)

    def load(self) -> None:
        """Make the first task's scene now, so that what is missing shows before anybody waits."""
        real2sim = self.code / "ManiSkill2_real2sim"
        os.environ.setdefault("MS2_ASSET_DIR", str(real2sim / "data"))
        sys.path += [str(path) for path in (self.code, real2sim) if str(path) not in sys.path]
        first = self._simulator(0)
        assert isinstance(first, SimplerSimulator)
        first.prepare(self.spec.tasks[0])


def check(suite: SimplerSuite) -> None:
    """Look for the clone, which holds code and scenes.

    Raises:
        UserError: if it is not there, with the command.
    """
    needed = (
        suite.code / "simpler_env",
        suite.code / "ManiSkill2_real2sim" / "mani_skill2_real2sim",
        suite.code / "ManiSkill2_real2sim" / "data",
    )
    missing = [str(path) for path in needed if not path.exists()]
    if missing:
        raise UserError(
            f"suite 'simpler-env': missing {', '.join(missing)}: git clone --recurse-submodules "
            f"https://github.com/simpler-env/SimplerEnv {suite.code}"
        )
