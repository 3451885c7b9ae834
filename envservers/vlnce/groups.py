"""How published tables evaluate VLN-CE."""

from __future__ import annotations

from envservers.task_groups import Protocol, TaskGroups

# The 1839 episodes of R2R's val_unseen, each once: held-out seeds are the split in its order.
GROUPS = TaskGroups(protocols={"val-unseen": Protocol(("r2r",), 1839)})
