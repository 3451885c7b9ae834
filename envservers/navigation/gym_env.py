"""Every navigation task as a registered Gymnasium environment: `vlarl/Navigation-<task>-v0`.

Importing this module registers them. One environment each; many at once are what `suite.py` is for.
"""

from __future__ import annotations

import gymnasium

from envservers.navigation.suite import MAX_STEPS, NavigationSuite
from envservers.navigation.tasks import TASKS, find_tasks
from envservers.suite_env import SuiteEnv


class NavigationGymEnv(SuiteEnv):
    """One navigation task behind Gymnasium's interface.

    Args:
        task: one of `envservers.navigation.TASKS`.
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
        suite = NavigationSuite(1, image_size=image_size, max_steps=max_steps)
        super().__init__(suite, find_tasks([task])[0].name, render_mode)


for _task in TASKS:
    gymnasium.register(
        id=f"vlarl/Navigation-{_task.name}-v0",
        entry_point="envservers.navigation.gym_env:NavigationGymEnv",
        kwargs={"task": _task.name},
    )
