"""A lock that goes to who waits for it, not to who comes back first."""

from __future__ import annotations

import threading
from types import TracebackType


class FairLock:
    """For two threads that want the same thing again and again.

    A plain lock is often taken again by the one that has just released it, as it runs while the
    other wakes: of acting and learning, one could wait for many turns of the other. Here it waits
    for the one that is under way.
    """

    def __init__(self) -> None:
        self._next, self._taken = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._next:
            self._taken.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._taken.release()
