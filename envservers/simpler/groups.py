"""Names for several of SimplerEnv's tasks, and how published tables evaluate them."""

from __future__ import annotations

from envservers.simpler.tasks import ROBOTS, TASKS
from envservers.task_groups import Protocol, TaskGroups

GROUPS = TaskGroups(
    groups={
        robot: tuple(name for name, task in TASKS.items() if task.robot == robot)
        for robot in ROBOTS
    },
    protocols={"widowx": Protocol(("widowx",), 24)},
)
