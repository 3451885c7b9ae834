"""Curves of a run as PNG: what `metrics.jsonl` holds, one panel for each quantity that is there."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vlarl.causes import CAUSES, OTHER, seconds_by_cause


class Panel(NamedTuple):
    """One plot: metrics that share an axis."""

    title: str
    keys: tuple[str, ...]
    unit_interval: bool = False


class Series(NamedTuple):
    """One metric's values; `steps` and `values` have the same length."""

    name: str
    steps: np.ndarray
    values: np.ndarray


PANELS = (
    Panel("Success rate", ("success_rate", "eval_success_rate"), unit_interval=True),
    Panel("Reward per decision", ("reward",)),
    Panel("Approximate KL", ("approximate_kl",)),
    Panel("Clip fraction", ("clip_fraction",)),
    Panel("Explained variance", ("explained_variance",)),
    Panel("Policy loss", ("policy_loss",)),
    Panel("Value loss", ("value_loss",)),
    Panel("Supervised loss", ("action_loss", "grounding_loss")),
    Panel("Success by task", ("success_rate/*",), unit_interval=True),
    Panel("Evaluated success by task", ("eval_success_rate/*",), unit_interval=True),
)
_COLORS = ("#1f5fa8", "#d1622b", "#3b8f4d", "#8a4fa3", "#a8862a", "#5b6470", "#c04f7c", "#2a9d9d")


def draw_curves(rows: Sequence[Mapping[str, Any]], columns: int = 3) -> bytes:
    """A PNG with a panel for each quantity that `rows` hold; noisy ones get a running mean.

    Args:
        rows: `metrics.jsonl`, each with `step`; None and missing values are left out.
        columns: panels side by side.

    Raises:
        ValueError: if no row holds a known quantity.
    """
    panels = panels_of(rows)
    if not panels:
        raise ValueError("no row of the metrics holds a quantity that has a panel")
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(4.2 * columns, 2.7 * lines)
    for place, (panel, found) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, place)
        for color, (name, steps, values) in zip(_cycle(len(found)), found, strict=True):
            _draw_line(axes, name, steps, values, color)
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if panel.unit_interval:
            axes.set_ylim(0, 1)
        if len(found) > 1:
            axes.legend(fontsize=7, frameon=False)
    return _png(figure)


def panels_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Panel, list[Series]]]:
    """The panels that the rows have numbers for, with those numbers."""
    return [(panel, found) for panel in PANELS if (found := _series(rows, panel.keys))]


def draw_seconds(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of where the time of each iteration went, causes stacked.

    Args:
        rows: of an RL run's `metrics.jsonl`.
    """
    spent = [seconds_by_cause(row) for row in rows]
    causes = [cause for cause in (*CAUSES, OTHER) if any(each[cause] for each in spent)]
    figure = _figure(8.4, 2.9)
    axes = figure.add_subplot()
    steps = np.array([row["step"] for row in rows], dtype=float)
    edges = np.append(steps - 0.5, steps[-1] + 0.5)
    bottom = np.zeros(len(rows))
    for cause, color in zip(causes, _cycle(len(causes)), strict=True):
        top = bottom + np.array([each[cause] for each in spent])
        axes.stairs(top, edges, baseline=bottom, fill=True, color=color, alpha=0.85, label=cause)
        bottom = top
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("iteration", fontsize=9)
    axes.set_ylabel("seconds", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _png(figure)


def draw_tasks(summaries: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A PNG with a bar for each task and policy, whiskers for the 95% interval.

    Args:
        summaries: policy name -> summary as in `evaluation.json`.
    """
    tasks = ["all", *next(iter(summaries.values()))["tasks"]]
    figure = _figure(max(5.0, 1.6 * len(tasks)), 3.0)
    axes = figure.add_subplot()
    width = 0.8 / len(summaries)
    for index, (color, (name, summary)) in enumerate(
        zip(_cycle(len(summaries)), summaries.items(), strict=True)
    ):
        rows = [summary if task == "all" else summary["tasks"][task] for task in tasks]
        rates = np.array([row["success_rate"] for row in rows])
        bounds = np.array([row["interval"] for row in rows]).T
        places = np.arange(len(tasks)) + (index - (len(summaries) - 1) / 2) * width
        whiskers = np.abs(bounds - rates)
        axes.bar(places, rates, width * 0.92, color=color, label=name)
        axes.errorbar(places, rates, yerr=whiskers, fmt="none", ecolor="#333", capsize=3, lw=1)
    axes.set_xticks(range(len(tasks)), [task.replace("_", " ") for task in tasks], fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("success", fontsize=9)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values at each place, of fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def _series(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Series]:
    """Name, steps and values of each metric that is there; `prefix/*` takes all below it."""
    names = dict.fromkeys(name for row in rows for name in row)
    wanted: list[str] = []
    for key in keys:
        if key.endswith("/*"):
            # Sorted, so that panels of the same tasks give each the same color.
            wanted += sorted(name for name in names if name.startswith(key[:-1]))
        elif key in names:
            wanted.append(key)
    found = []
    for name in wanted:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            steps, values = np.array(points, dtype=float).T
            found.append(Series(name.rpartition("/")[2], steps, values))
    return found


def _draw_line(axes: Any, name: str, steps: np.ndarray, values: np.ndarray, color: str) -> None:
    if len(values) < 20:
        axes.plot(steps, values, color=color, marker="o", markersize=3, lw=1.4, label=name)
        return
    axes.plot(steps, values, color=color, alpha=0.25, lw=1)
    smooth = running_mean(values, window=max(2, len(values) // 12))
    axes.plot(steps, smooth, color=color, lw=1.6, label=name)


def _cycle(count: int) -> list[str]:
    return [_COLORS[index % len(_COLORS)] for index in range(count)]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
