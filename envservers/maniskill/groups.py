"""Names of the `maniskill` suite's tasks."""

from __future__ import annotations

from envservers.maniskill.tasks import TABLE_TOP, without_version
from envservers.task_groups import TaskGroups

GROUPS = TaskGroups(short=without_version(TABLE_TOP))
