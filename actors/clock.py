"""The time that rollout goes by: the wall clock's, or a simulation's (`vlarl bench scale`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from envservers.client import wait_ready
from vlarl.env_protocol import EnvClient


class Clock(Protocol):
    """What the collector asks of time."""

    def now(self) -> float:
        """Seconds since some moment."""
        ...

    def wait(self, clients: Sequence[EnvClient], seconds: float) -> list[EnvClient]:
        """Wait up to `seconds` until some client has an answer; those that have one."""
        ...


class WallClock:
    """The real one; its moment is that of `time.perf_counter`."""

    def now(self) -> float:
        """See `Clock`."""
        return time.perf_counter()

    def wait(self, clients: Sequence[EnvClient], seconds: float) -> list[EnvClient]:
        """See `Clock`."""
        return wait_ready(clients, seconds)
