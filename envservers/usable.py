"""Whether a suite can run here at all, found out before any process of a run is started."""

from __future__ import annotations

from envservers import environments, opengl, vulkan
from envservers.registry import find_suite


def check_usable(name: str) -> None:
    """Look at the suite's environment and at what it draws with.

    Raises:
        UserError: if its environment is not installed or has other pins, or no driver draws; with
            the remedy.
    """
    entry = find_suite(name)
    if entry.environment:
        environments.python_of(entry.environment)
    if entry.graphics == "opengl":
        opengl.usable()
    elif entry.graphics == "vulkan":
        vulkan.usable()
