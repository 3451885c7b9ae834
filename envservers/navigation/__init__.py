"""The navigation suite: rooms, landmarks and somebody to follow, seen from an agent's camera."""

from envservers.navigation.suite import NavigationSuite
from envservers.navigation.tasks import TASKS

__all__ = ["TASKS", "NavigationSuite"]
