"""The small table under the progress bar of an RL run: success, speed, time by cause, learning.

A view takes in rows of metrics and is a rich renderable of at most 80 columns; `Progress.show` puts
it on a terminal. What a row lacks is left out. Env servers do not use this file: it needs rich.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from vlarl.causes import OTHER, seconds_by_cause

WIDTH = 80
_HISTORY = 24
_BAR = 24
_MOST_TASKS = 8
_EMA = 0.9
_LEVELS = " ▁▂▃▄▅▆▇█", " .:-=+*##"
_PARTS = (
    ("policy", ("policy",), "green", "█#"),
    (
        "waiting",
        ("waiting for simulation", "waiting for resets", "waiting for decisions"),
        "yellow",
        "▒~",
    ),
    ("update", ("update",), "blue", "▓="),
    ("other", ("publishing", "evaluation", "saving", OTHER), "bright_black", "░."),
)
"""Of the bar: name, causes, color, and its character with and without Unicode."""
_LEARNING = {
    "KL": ("approximate_kl", "{:.4f}"),
    "clipped": ("clip_fraction", "{:.1%}"),
    "explained variance": ("explained_variance", "{:.2f}"),
}
_PROCESSES = {
    "restarts": ("restarts_total", "{:.0f}"),
    "dropped episodes": ("dropped_episodes_total", "{:.0f}"),
}


class LiveView:
    """What the iterations so far show.

    Args:
        rows: of `metrics.jsonl`, oldest first, where a run goes on.
    """

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()) -> None:
        self._row: Mapping[str, float] = {}
        self._smooth: deque[float] = deque(maxlen=_HISTORY)
        self._tasks: dict[str, float] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, float]) -> None:
        """Take in one iteration's metrics."""
        self._row = row
        if row.get("success_rate_smooth") is not None:
            self._smooth.append(row["success_rate_smooth"])
        for name, value in row.items():
            prefix, slash, task = name.partition("/")
            if prefix == "success_rate" and slash and value is not None:
                before = self._tasks.get(task, value)
                self._tasks[task] = _EMA * before + (1 - _EMA) * value

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """At most `WIDTH` columns, and no wider than the terminal."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        plain = options.ascii_only
        for label, text in (
            ("success", self._success(plain)),
            ("time", self._time(plain)),
            ("learning", _numbers(self._row, _LEARNING)),
            ("processes", self._processes()),
            ("tasks", self._by_task()),
        ):
            if text:
                table.add_row(label, text)
        width = min(WIDTH, options.max_width)
        yield from console.render(table, options.update(width=width, max_width=width))

    def _success(self, plain: bool) -> Text:
        """Smoothed success with its course, decisions a second, episodes."""
        found = []
        if self._smooth:
            found.append(f"{self._smooth[-1]:.0%} {sparkline(self._smooth, plain)}")
        found.append(
            _numbers(
                self._row,
                {
                    "decisions/s": ("decisions_per_second", "{:.1f}"),
                    "episodes": ("episodes", "{:.0f}"),
                },
            ).plain
        )
        return Text("   ".join(filter(None, found)))

    def _time(self, plain: bool) -> Text:
        """A bar of where the last iteration's time went, and the shares in words."""
        seconds = seconds_by_cause(self._row)
        whole = sum(seconds.values())
        if not whole:
            return Text()
        bar, words = Text(), Text()
        drawn, reached = 0, 0.0
        for name, causes, color, marks in _PARTS:
            share = sum(seconds[cause] for cause in causes) / whole
            reached += share
            cells = round(reached * _BAR) - drawn
            drawn += cells
            bar.append(marks[plain] * cells, color)
            words.append(f" {name} ", color).append(f"{share:.0%}")
        return bar.append_text(words)

    def _processes(self) -> Text:
        """Restarts, dropped episodes, memory of all processes."""
        text = _numbers(self._row, _PROCESSES)
        used = {name: n for name, n in self._row.items() if name.endswith("_memory_bytes")}
        on_gpu = [used.pop(name) for name in list(used) if "_gpu_" in name]
        if used:
            text.append(f"{'   ' * bool(text)}memory {sum(used.values()) / 1e9:.2f} GB")
        if on_gpu:
            text.append(f", on GPUs {sum(on_gpu) / 1e9:.2f} GB")
        return text

    def _by_task(self) -> Text:
        """Smoothed success of each task."""
        shown = sorted(self._tasks.items())[:_MOST_TASKS]
        words = [f"{task.replace('_', ' ')} {rate:.0%}" for task, rate in shown]
        left_out = len(self._tasks) - len(shown)
        return Text("   ".join(words + [f"and {left_out} more"] * bool(left_out)))


def sparkline(values: Iterable[float], plain: bool = False) -> str:
    """A character for each value in [0, 1], higher for more; `plain`: of ASCII alone."""
    levels = _LEVELS[plain]
    return "".join(levels[1 + round(min(max(v, 0.0), 1.0) * (len(levels) - 2))] for v in values)


def _numbers(row: Mapping[str, float], shown: Mapping[str, tuple[str, str]]) -> Text:
    """Labels and values of the metrics that the row has."""
    found = {label: (row.get(name), form) for label, (name, form) in shown.items()}
    words = [f"{label} {form.format(v)}" for label, (v, form) in found.items() if v is not None]
    return Text("   ".join(words))
