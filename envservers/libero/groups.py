"""LIBERO's groups of tasks and the evaluation of its published tables."""

from __future__ import annotations

from envservers.libero.tasks import GROUPS as _BY_NAME
from envservers.libero.tasks import TRIALS, all_tasks, chosen
from envservers.task_groups import Protocol, TaskGroups

_STANDARD = ("spatial", "object", "goal", "long")

GROUPS = TaskGroups(
    groups={name: chosen(name, None) for name in _BY_NAME},
    short={
        bare: tuple(task for task in all_tasks() if task.partition("/")[2] == bare)
        for bare in (task.partition("/")[2] for task in all_tasks())
    },
    reported=tuple(_BY_NAME),
    protocols={
        "standard": Protocol(_STANDARD, TRIALS),
        **{name: Protocol((name,), TRIALS) for name in _BY_NAME},
    },
)
"""`standard`: the four groups that published tables have side by side."""
