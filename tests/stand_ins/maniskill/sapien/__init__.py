"""Stands in for `sapien` 3.0.3: devices, and the GPU's library (`sapien/physx/__init__.py`)."""

from sapien import physx  # noqa: F401


class Device:
    """Raises RuntimeError for one that is not there; tests do."""

    def __init__(self, name):
        self.name = name
