"""What each process did when, as a Chrome trace: open `profile.json` at https://ui.perfetto.dev.

A process has one `Timeline`, handed to whoever works in it. Off, which is the default, it keeps
nothing. Times are the wall clock's, so that several processes' spans fit together as well as their
machines' clocks do. A span is what the CPU did: work of a GPU that nobody waits for ends elsewhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple


class Span(NamedTuple):
    """One piece of work. On one track, spans contain one another or do not overlap."""

    process: str
    track: str
    name: str
    begin: int
    """Nanoseconds of the wall clock."""
    end: int
    """Likewise."""


class Timeline:
    """Spans of one process, by track, while it records.

    Args:
        process: named in the trace.
    """

    def __init__(self, process: str) -> None:
        self.process = process
        self._recording = False
        self._spans: list[Span] = []
        self._open: dict[str, tuple[str, int]] = {}
        self._to_wall = time.time_ns() - time.perf_counter_ns()

    def record(self) -> None:
        """Begin; what was recorded before is forgotten."""
        self._recording = True
        self._spans, self._open = [], {}
        self._to_wall = time.time_ns() - time.perf_counter_ns()

    def recorded(self) -> list[Span]:
        """End, and hand out the spans; those that are open end now."""
        for track in list(self._open):
            self.close(track)
        self._recording = False
        spans, self._spans = self._spans, []
        return spans

    def span(self, track: str, name: str) -> AbstractContextManager[None]:
        """A span as long as the block."""
        return self._timed(track, name) if self._recording else _NOTHING

    def add(self, track: str, name: str, started: float) -> None:
        """A span from `started`, as `time.perf_counter` said then, until now."""
        if self._recording:
            self._keep(track, name, round(started * 1e9))

    def open(self, track: str, name: str) -> None:
        """Begin a span that somebody else's answer will `close`; one at a time on a track."""
        if self._recording and track not in self._open:
            self._open[track] = (name, time.perf_counter_ns())

    def close(self, track: str) -> None:
        """End the span that is open on this track, if one is."""
        if track in self._open:
            self._keep(track, *self._open.pop(track))

    def _keep(self, track: str, name: str, begin: int) -> None:
        end = time.perf_counter_ns() + self._to_wall
        self._spans.append(Span(self.process, track, name, begin + self._to_wall, end))

    @contextmanager
    def _timed(self, track: str, name: str) -> Iterator[None]:
        begin = time.perf_counter_ns()
        try:
            yield
        finally:
            self._keep(track, name, begin)


_NOTHING: AbstractContextManager[None] = nullcontext()


def write_trace(path: Path, spans: Sequence[Span]) -> None:
    """Write spans in Chrome's trace event format, a process and a track for each of theirs."""
    first = min((span.begin for span in spans), default=0)
    processes = {name: number for number, name in enumerate(_names(s.process for s in spans), 1)}
    places = _names((span.process, span.track) for span in spans)
    tracks = {place: number for number, place in enumerate(places, 1)}
    events: list[dict[str, Any]] = []
    for process, number in processes.items():
        events += _named("process", process, pid=number, tid=0)
    for (process, track), number in tracks.items():
        events += _named("thread", track, pid=processes[process], tid=number)
    events += [
        {
            "ph": "X",
            "name": span.name,
            "pid": processes[span.process],
            "tid": tracks[span.process, span.track],
            "ts": (span.begin - first) / 1000,
            "dur": (span.end - span.begin) / 1000,
        }
        for span in sorted(spans, key=lambda span: (span.begin, -span.end))
    ]
    text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
    path.write_text(text + "\n", encoding="utf-8")


def _names(words: Any) -> list[Any]:
    """Each once, in the order of their first appearance."""
    return list(dict.fromkeys(words))


def _named(what: str, name: str, **place: int) -> list[dict[str, Any]]:
    """Metadata: what the viewer calls a process or a thread, and that it keeps our order."""
    order = place["tid"] or place["pid"]
    return [
        {"ph": "M", "name": f"{what}_name", "args": {"name": name}, **place},
        {"ph": "M", "name": f"{what}_sort_index", "args": {"sort_index": order}, **place},
    ]
