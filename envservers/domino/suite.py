"""DOMINO as a suite: 35 tasks of two arms with objects that move.

See docs/suites/domino.md. The class is read where the simulator is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from envservers.domino.checkout import CONFIGS, CheckoutRuntime
from envservers.domino.simulator import DominoSimulator
from envservers.domino.tasks import GROUPS, LIMITS, TASKS
from envservers.options import check_choice, check_least
from envservers.robotwin.scenes import Scenes
from envservers.robotwin.suite import WORDINGS, arms_spec
from envservers.robotwin.tasks import find_tasks
from envservers.slot_suite import SlotSuite
from vlarl.errors import UserError

CHECKOUT = "DOMINO_ROOT"
"""Environment variable: the checkout."""
_LEVELS = (0, 1, 2, 3)
_PARTS = ("envs", "script/eval_metrics.py", "task_config", "assets/embodiments/aloha-agilex")
_REPOSITORY = "https://github.com/H-EmbodVis/DOMINO"


class DominoSuite(SlotSuite):
    """`num_envs` environments; implements `vlarl.env_protocol.Suite`.

    Args:
        num_envs: slots.
        image_size: height of the pictures, in pixels; they are 4:3.
        tasks: names of tasks, or `domino-35`; None: all 35.
        max_steps: control steps of an episode; 0: each task's own limit.
        surroundings: `clean`, as the published table has it, or `random`.
        level: how the object moves, 1 to 3; 0: as DOMINO's configuration says.
        wording: `unseen` sentences, as evaluations have it, or `seen` ones.
        checkout: folder of the repository; empty: the environment variable DOMINO_ROOT.

    Raises:
        ValueError: for an unknown task or setting, or a number out of range.
    """

    def __init__(
        self,
        num_envs: int,
        image_size: int = 64,
        tasks: Sequence[str] | None = None,
        max_steps: int = 0,
        surroundings: str = "clean",
        level: int = 0,
        wording: str = "unseen",
        checkout: str = "",
    ) -> None:
        check_least(1, image_size=image_size)
        check_least(0, max_steps=max_steps)
        check_choice("surroundings", surroundings, tuple(CONFIGS))
        check_choice("wording", wording, WORDINGS)
        if level not in _LEVELS:
            raise ValueError(f"level = {level}: choose one of 0, 1, 2, 3")
        names = find_tasks("domino", tasks, TASKS, GROUPS.groups)
        self.checkout = checkout or os.environ.get(CHECKOUT, "")
        limits = {name: max_steps or LIMITS[name] for name in names}
        spec = arms_spec("domino", names, image_size, limits)
        self._settings = surroundings, level, wording
        self._shared: tuple[CheckoutRuntime, Scenes] | None = None

        def simulator() -> DominoSimulator:
            runtime, scenes = self._program()
            return DominoSimulator(scenes, image_size, limits, runtime)

        super().__init__(num_envs, spec, simulator, limits=limits)

    def _program(self) -> tuple[CheckoutRuntime, Scenes]:
        if self._shared is None:
            runtime = CheckoutRuntime(Path(self.checkout).expanduser(), *self._settings)
            # How an object moves follows from how the expert met it: without him there is none.
            self._shared = runtime, Scenes(runtime, expert_check=True)
        return self._shared


def check(suite: DominoSuite) -> None:
    """Look for the checkout and its scenes.

    Raises:
        UserError: if there is none, or it is not complete, with what to do.
    """
    remedy = (
        f"git clone {_REPOSITORY}, in it bash script/_download_assets.sh, then set "
        f"{CHECKOUT}=FOLDER (or env.options.checkout=FOLDER); see docs/suites/domino.md"
    )
    if not suite.checkout:
        raise UserError(f"suite 'domino' does not know where its program is: {remedy}")
    folder = Path(suite.checkout).expanduser()
    missing = [part for part in _PARTS if not (folder / part).exists()]
    if missing:
        raise UserError(f"suite 'domino' lacks {', '.join(missing)} in {folder}: {remedy}")
