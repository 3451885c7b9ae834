"""Rollout without end, in a thread of its own: learning takes what is there, nobody waits for it.

The thread turns a `RolloutCollector`; a lane whose window is full hands it over as a segment and
goes on at once. Segments wait in a bounded queue until learning takes those of one iteration.
Errors of the thread are raised, as they are, where segments are taken. Leaves out weights: who
changes them holds the collector's lock meanwhile, and says their version.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from tensordict import TensorDict

from actors.process_stats import ServerCounters
from actors.rollout import RolloutCollector
from actors.rollout_stats import RolloutStats, Tally
from actors.segment import Segment, joined
from vlarl.batch import validate

_QUEUED_ITERATIONS = 2
"""The queue's bound, in decisions of one iteration: one that learning takes next, and one that is
being made as it does. What is beyond is older than what is learned from anyway; the oldest segment
makes room, so that rollout never waits."""
_PATIENCE_SECONDS = 0.1
"""The thread looks this often whether it is to stop, if no server answers."""


class RolloutStream:
    """A collector that runs while others learn.

    Args:
        collector: turned by the thread alone, unless it is paused.
        version: of the weights now.
        max_staleness: in updates; an older decision counts for nothing here.
        threads: of torch, in the rollout's thread.
        counters: of the servers, asked each time a window is full; they are told by who wants to
            know.
    """

    def __init__(
        self,
        collector: RolloutCollector,
        version: Callable[[], int],
        max_staleness: int,
        threads: int,
        counters: ServerCounters | None = None,
    ) -> None:
        self._collector = collector
        self._version = version
        self._max_staleness = max_staleness
        self._threads = threads
        self._counters = counters or ServerCounters()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._running: Future[None] | None = None
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        # Below: with the condition held.
        self._queue: deque[Segment] = deque()
        self._tally = Tally()
        self._dropped = 0
        # Below: of the thread that takes alone.
        self._since = 0.0
        self._seconds = 0.0

    def take(self) -> tuple[TensorDict, RolloutStats]:
        """The oldest segments that hold enough decisions for an iteration; waits for them.

        Enough are those of one iteration, not counting any over age. Goes on if it was paused.

        Returns:
            A batch of whole segments, streams numbered anew; and what happened since the last one.

        Raises:
            Exception: what ended the rollout, as itself (`RolloutCollector.turn`).
        """
        self._go_on()
        assert self._running is not None
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._enough() or self._ended())
            if not self._enough():
                self._running.result()
            taken = [self._queue.popleft() for _ in range(self._enough())]
            tally, self._tally = self._tally, Tally()
            dropped, self._dropped = self._dropped, 0
        now = time.perf_counter()
        batch = joined([segment.rows for segment in taken])
        validate(batch)
        seconds = self._seconds + now - self._since
        self._seconds, self._since = 0.0, now
        waited = now - started
        return batch, self._collector.stats(taken, tally, seconds).of_stream(dropped, waited)

    def waiting_decisions(self) -> int:
        """That are in the queue; may be asked from another thread."""
        with self._changed:
            return sum(len(segment.rows) for segment in self._queue)

    def pause(self) -> None:
        """Stop where every environment has answered; what was begun goes on with the next `take`.

        Raises:
            Exception: what ended the rollout, as itself.
        """
        if self._running is None:
            return
        self._stopping.set()
        self._running.result()
        self._running = None
        self._collector.settle()
        self._hand_over()
        self._seconds += time.perf_counter() - self._since

    def close(self) -> None:
        """End the thread, whatever became of it; safe to call twice."""
        self._stopping.set()
        self._pool.shutdown()

    def _go_on(self) -> None:
        if self._running is None:
            self._stopping.clear()
            self._since = time.perf_counter()
            # A thread takes over the number that was set last when it first asks: ask before the
            # rollout sets its own.
            torch.get_num_threads()
            self._running = self._pool.submit(self._run)
            self._running.add_done_callback(self._notify)

    def _run(self) -> None:
        """The thread's work."""
        torch.set_num_threads(self._threads)
        torch.get_num_threads()
        self._collector.begin()
        while not self._stopping.is_set():
            self._collector.turn(self._version, _PATIENCE_SECONDS)
            self._hand_over()
            self._collector.move_due()

    def _hand_over(self) -> None:
        segments, tally = self._collector.take_segments()
        self._counters.take_in()
        for segment in segments:
            self._counters.submit(segment.server, self._collector.clients[segment.server])
        with self._changed:
            self._tally.add(tally)
            self._queue.extend(segments)
            most = _QUEUED_ITERATIONS * self._collector.decisions
            while sum(len(segment.rows) for segment in self._queue) > most:
                self._dropped += len(self._queue.popleft().rows)
            self._changed.notify_all()

    def _enough(self) -> int:
        """How many of the queue's segments make a batch; 0: even all of them are too few."""
        found, version = 0, self._version()
        for count, segment in enumerate(self._queue, start=1):
            age = version - segment.rows["version"]
            found += int((age <= self._max_staleness).sum())
            if found >= self._collector.decisions:
                return count
        return 0

    def _ended(self) -> bool:
        return self._running is not None and self._running.done()

    def _notify(self, _ended: Future[None]) -> None:
        with self._changed:
            self._changed.notify_all()
