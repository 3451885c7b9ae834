"""The built-in suite: an arm, a table, eight objects, four tasks told apart by language alone."""

from envservers.tabletop.scene import OBJECTS
from envservers.tabletop.suite import TabletopSuite
from envservers.tabletop.tasks import TASKS

__all__ = ["OBJECTS", "TASKS", "TabletopSuite"]
