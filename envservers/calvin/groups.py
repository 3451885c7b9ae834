"""How the published evaluation of CALVIN goes."""

from __future__ import annotations

from envservers.calvin.starts import PUBLISHED
from envservers.calvin.tasks import CHAIN
from envservers.task_groups import Protocol, TaskGroups

GROUPS = TaskGroups(protocols={"long-horizon": Protocol((CHAIN,), PUBLISHED)})
