"""DOMINO's tasks as data: those of RoboTwin's that move an object; the published evaluation."""

from __future__ import annotations

from envservers.robotwin.tasks import LIMITS as _ROBOTWIN
from envservers.task_groups import Protocol, TaskGroups

_STATIC_ONLY = (
    "blocks_ranking_rgb", "blocks_ranking_size", "lift_pot", "open_laptop", "open_microwave",
    "pick_diverse_bottles", "pick_dual_bottles", "place_burger_fries", "place_cans_plasticbox",
    "place_dual_shoes", "stack_blocks_three", "stack_blocks_two", "stack_bowls_three",
    "stack_bowls_two", "turn_switch",
)  # fmt: skip

LIMITS = {task: steps for task, steps in _ROBOTWIN.items() if task not in _STATIC_ONLY}
"""Task -> control steps of an episode. RoboTwin's: DOMINO's own table was not at hand."""

TASKS = tuple(LIMITS)

GROUPS = TaskGroups(
    groups={"domino-35": TASKS},
    protocols={"domino-35": Protocol(("domino-35",), 100)},
)
