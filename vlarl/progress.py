"""Progress of long work: a bar with rate and remaining time on a terminal, plain lines elsewhere.

On a terminal, more may be shown under the bar (`Progress.show`).
Everything goes to standard error, so that a command's standard output stays its own. Env servers
do not use this file: it needs rich.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAIN_LINE_SECONDS = 10.0
_REFRESHES = 4
"""A second. Each costs a millisecond or two of a core that may be simulating."""


class Progress:
    """Counts `total` units of one job; a context manager.

    Args:
        label: what is being done.
        total: units of the whole job.
        unit: what is counted, for the rate.
        stream: where to write; standard error by default.
    """

    def __init__(
        self, label: str, total: int, unit: str = "steps", stream: TextIO | None = None
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._stream = stream if stream is not None else sys.stderr
        self._done = 0
        self._note = ""
        self._started = self._printed = time.monotonic()
        self._bar = _bar(self._stream) if self._stream.isatty() else None
        self._task = None
        self._more = False

    def __enter__(self) -> Progress:
        self._started = self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(
                self._label, total=self._total, unit=self._unit, note=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._print_line()

    def advance(self, amount: int = 1, **numbers: float) -> None:
        """Count `amount` more units; `numbers` are shown beside the bar."""
        self.reach(self._done + amount, **numbers)

    def show(self, view: RenderableType) -> None:
        """Show `view` under the bar, as it is from the next count on, in place of the numbers.

        Away from a terminal nothing is shown of it.
        """
        if self._bar is not None:
            self._more = True
            self._bar.view = view

    def reach(self, done: int, **numbers: float) -> None:
        """Set the count to `done` units."""
        self._done = done
        if numbers:
            self._note = " ".join(f"{name}={value:.4g}" for name, value in numbers.items())
        if self._bar is not None:
            assert self._task is not None
            note = "" if self._more else self._note
            self._bar.update(self._task, completed=self._done, note=note)
        elif time.monotonic() - self._printed >= PLAIN_LINE_SECONDS:
            self._print_line()

    def _print_line(self) -> None:
        self._printed = time.monotonic()
        seconds = max(1e-9, self._printed - self._started)
        rate = self._done / seconds
        left = (self._total - self._done) / rate if rate > 0 else float("inf")
        remaining = f", {_duration(left)} left" if self._done < self._total else ""
        line = f"{self._label}: {self._done}/{self._total} {self._unit}, {rate:.3g}/s{remaining}"
        print(f"{line} {self._note}".rstrip(), file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(stream: TextIO):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """A rich progress bar with rate and remaining time, and room for a view below it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units a second."""

        def render(self, task: Task) -> Text:
            """The rate so far, or a dash before the first unit."""
            return Text(f"{task.speed:.3g} {task.fields['unit']}/s" if task.speed else "-")

    class BarAndView(RichProgress):
        view: RenderableType = ""

        def get_renderables(self) -> Iterable[RenderableType]:
            """The bar, then the view, once there is one."""
            yield from super().get_renderables()
            if self.view:
                yield self.view

    return BarAndView(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(file=stream),
        refresh_per_second=_REFRESHES,
        transient=False,
    )
