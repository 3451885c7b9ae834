"""Every tabletop task as a registered Gymnasium environment: `vlarl/Tabletop-<task>-v0`.

Importing this module registers them. One environment each; many at once are what `suite.py` is for.
"""

from __future__ import annotations

import gymnasium

from envservers.suite_env import SuiteEnv
from envservers.tabletop.suite import MAX_STEPS, TabletopSuite
from envservers.tabletop.tasks import TASKS, find_task


class TabletopGymEnv(SuiteEnv):
    """One tabletop task behind Gymnasium's interface.

    Args:
        task: one of `envservers.tabletop.TASKS`.
        image_size: width and height of the images.
        max_steps: control steps after which an episode is truncated.
        render_mode: None or "rgb_array" (the `ego` camera).
    """

    def __init__(
        self,
        task: str,
        image_size: int = 64,
        max_steps: int = MAX_STEPS,
        render_mode: str | None = None,
    ) -> None:
        """Build a suite of one slot."""
        suite = TabletopSuite(1, image_size=image_size, max_steps=max_steps)
        super().__init__(suite, find_task(task).name, render_mode)


for _task in TASKS:
    gymnasium.register(
        id=f"vlarl/Tabletop-{_task.name}-v0",
        entry_point="envservers.tabletop.gym_env:TabletopGymEnv",
        kwargs={"task": _task.name},
    )
