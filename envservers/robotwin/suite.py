"""RoboTwin 2.0 as a suite: 50 tasks of two arms, language, three cameras.

See docs/suites/robotwin.md. The class is read where the simulator is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from envservers.options import check_choice, check_least
from envservers.robotwin.robot import CONTROL_HZ, EMBODIMENT, cameras, channels
from envservers.robotwin.runtime import CONFIGS, PackageRuntime
from envservers.robotwin.scenes import Scenes
from envservers.robotwin.simulator import RoboTwinSimulator
from envservers.robotwin.tasks import GROUPS, LIMITS, TASKS, find_tasks
from envservers.slot_suite import SlotSuite
from vlarl.errors import UserError
from vlarl.types import EnvSpec

ASSETS = "ROBOTWIN_ASSETS_ROOT"
"""Environment variable: the folder of the scenes, the package's own name for it."""
PLANNERS = ("mplib", "curobo")
WORDINGS = ("unseen", "seen")
_PARTS = ("background_texture", "embodiments/aloha-agilex", "objects")


class RoboTwinSuite(SlotSuite):
    """`num_envs` environments; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: slots.
        image_size: height of the pictures, in pixels; they are 4:3.
        tasks: names of tasks, or `robotwin-50`; None: all 50.
        max_steps: control steps of an episode; 0: each task's published limit.
        difficulty: `easy` (a clean table) or `hard` (clutter, textures, lamps and table height
            drawn for each scene).
        wording: `unseen` sentences, as evaluations have it, or `seen` ones.
        expert_check: whether scenes that the benchmark's own expert fails are left out, as the
            published protocol does; it plans for each new scene, which takes long.
        planner: the expert's: `mplib`, or `curobo`, which is installed by hand.
        assets: folder of the scenes; empty: the environment variable ROBOTWIN_ASSETS_ROOT.

    Raises:
        ValueError: for an unknown task or setting, or a number out of range.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        difficulty: str = "easy",
        wording: str = "unseen",
        expert_check: bool = True,
        planner: str = "mplib",
        assets: str = "",
    ) -> None:
        check_least(1, image_size=image_size)
        check_least(0, max_steps=max_steps)
        for option, value, allowed in (
            ("difficulty", difficulty, tuple(CONFIGS)),
            ("wording", wording, WORDINGS),
            ("planner", planner, PLANNERS),
        ):
            check_choice(option, value, allowed)
        names = find_tasks("robotwin", tasks, TASKS, GROUPS.groups)
        self.assets = assets or os.environ.get(ASSETS, "")
        limits = {name: max_steps or LIMITS[name] for name in names}
        spec = arms_spec("robotwin", names, image_size, limits)
        self._settings = difficulty, planner, wording
        self._expert_check = expert_check
        self._scenes: Scenes | None = None
        super().__init__(
            num_envs,
            spec,
            lambda: RoboTwinSimulator(self._shared(), image_size, limits),
            limits=limits,
        )

    def _shared(self) -> Scenes:
        if self._scenes is None:
            runtime = PackageRuntime(self.assets, *self._settings)
            self._scenes = Scenes(runtime, self._expert_check)
        return self._scenes


def arms_spec(
    suite: str, tasks: tuple[str, ...], image_size: int, limits: dict[str, int]
) -> EnvSpec:
    """What a suite of the two arms simulates; an episode's limit is the longest task's."""
    own = channels()
    return EnvSpec(
        suite=suite,
        tasks=tasks,
        cameras=cameras(image_size),
        channels=own,
        embodiment=EMBODIMENT,
        control_hz=CONTROL_HZ,
        max_steps=max(limits.values()),
        state_dim=len(own),
    )


def check(suite: RoboTwinSuite) -> None:
    """Look for the scenes, which no package index has.

    Raises:
        UserError: if they are missing, with the command that fetches them.
    """
    if importlib.util.find_spec("robotwin") is None:
        return
    command = f"{Path(sys.executable).parent / 'robotwin-download-assets'} --output DIR"
    if not suite.assets:
        raise UserError(
            f"suite 'robotwin' does not know where its scenes are: run {command}, then set "
            f"{ASSETS}=DIR (or env.options.assets=DIR)"
        )
    root = Path(suite.assets).expanduser() / "assets"
    missing = [part for part in _PARTS if not (root / part).is_dir()]
    if missing:
        raise UserError(
            f"suite 'robotwin' lacks {', '.join(missing)} in {root}: run {command} with a new "
            f"folder, then set {ASSETS}=DIR (or env.options.assets=DIR)"
        )
