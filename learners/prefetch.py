"""Values of a numbered series made ahead of their use, by worker processes, in their order.

Processes and not threads: a thread that decodes holds the interpreter that launches the training
step's operations, and costs it more than it saves. Forked and not spawned: what a worker reads
from is shared with it, however large, and nothing is pickled on the way to it. So a worker must
not touch a GPU, nor threads of its parent's, of which a fork has none.

Leaves out what is made. Tensors come back in shared memory (`/dev/shm`).
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from vlarl.data.skipped import SkippedEpisodes
from vlarl.errors import UserError

Value = TypeVar("Value")
AHEAD = 2
"""Values that are made ahead for each worker."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class _Made(Generic[Value]):
    """What a worker sends back."""

    value: Value | None
    error: ValueError | None
    """What stands in the way of the value, as it was raised."""
    skipped: list[list[tuple[int, str]]]
    """Corrupt episodes met for the first time by this worker, with reasons, of each dataset."""


class Prefetch(Generic[Value]):
    """The values `make(n)`, made ahead; without workers each is made when it is asked for.

    Errors and corrupt episodes come when their value is asked for, in the order of the series: they
    are those of a series made here. Processes start with the first value and end with `close`, or
    with this process, however that ends.
    """

    def __init__(
        self,
        make: Callable[[int], Value],
        workers: int = 0,
        skipped: Sequence[SkippedEpisodes] = (),
    ) -> None:
        """`make` is a pure function but for what it adds to `skipped`; it need not be picklable."""
        self._make, self._workers, self._skipped = make, workers, tuple(skipped)
        self._pool: ProcessPoolExecutor | None = None
        self._coming: deque[Future[_Made[Value]]] = deque()
        self._next = 0

    def at(self, number: int) -> Value:
        """Value `number`; numbers in sequence are those made ahead.

        Raises:
            ValueError: as `make`, and UserError if too many episodes are corrupt.
            RuntimeError: if a worker died.
        """
        if not self._workers:
            return self._make(number)
        if self._pool is None or number != self._next:
            self.close()
            self._start(number)
        found = self._wait()
        self._next = number + 1
        for known, new in zip(self._skipped, found.skipped, strict=True):
            for episode, reason in new:
                known.add(episode, UserError(reason))
        if found.error is not None:
            raise found.error
        assert found.value is not None
        return found.value

    def close(self) -> None:
        """End the workers and forget what they made; `at` starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        self._coming.clear()

    def _start(self, number: int) -> None:
        self._pool = ProcessPoolExecutor(
            self._workers,
            multiprocessing.get_context("fork"),
            _begin,
            (self._make, self._skipped, os.getpid()),
        )
        self._next = number
        for ahead in range(AHEAD * self._workers):
            self._coming.append(self._pool.submit(_made, number + ahead))

    def _wait(self) -> _Made[Value]:
        """The next value made, and one more ordered."""
        assert self._pool is not None
        last = self._next + len(self._coming)
        try:
            found = self._coming.popleft().result()
            self._coming.append(self._pool.submit(_made, last))
        except BrokenProcessPool as error:
            self.close()
            raise RuntimeError(
                f"a worker of supervised.data.workers={self._workers} died while it made batches. "
                "Most often memory, or the shared memory in /dev/shm, is too small: use fewer "
                "workers, or 0"
            ) from error
        return found


_task: tuple[Callable[[int], Any], Sequence[SkippedEpisodes]] | None = None
"""Of this process, if it is a worker."""


def _begin(make: Callable[[int], Any], skipped: Sequence[SkippedEpisodes], parent: int) -> None:
    """Make this process a worker of `parent`."""
    global _task
    # Ctrl-C and a scheduler's SIGTERM reach the whole group: the parent decides what comes of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    # What was inherited stays: to collect it would copy its pages, and free what is on a GPU.
    gc.freeze()
    # OpenMP's threads were not forked.
    torch.set_num_threads(1)
    # Neither were those of the tokenizers, which say so at length otherwise.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for each in skipped:
        each.silent = True
    _task = make, skipped


def _made(number: int) -> _Made[Any]:
    assert _task is not None
    make, skipped = _task
    before = [len(each) for each in skipped]
    value, problem = None, None
    try:
        value = make(number)
    except ValueError as error:
        problem = error
    new = [list(each.reasons.items())[count:] for each, count in zip(skipped, before, strict=True)]
    return _Made(value, problem, new)
