"""The tables of `bench_stages.py` as a picture: success of every row, with its interval."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOR, _SEED, _ROW = "#1f5fa8", "#d1622b", 0.27
"""Colors of means and of single seeds; inches of a row."""


def draw_tables(tables: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A PNG with one panel for each table: mean and 95% interval in blue, each seed in orange."""
    heights = [len(rows) + 2.2 for rows in tables.values()]
    figure = Figure(figsize=(8.0, _ROW * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights, sharex=True)
    for axes, (name, rows) in zip(panels[:, 0], tables.items(), strict=True):
        _panel(axes, name, rows)
    panels[-1, 0].set_xlabel("success in %")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _panel(axes: Axes, name: str, rows: Mapping[str, Any]) -> None:
    for height, row in enumerate(rows.values()):
        low, high = (100 * end for end in row["interval"])
        mean = 100 * row["success_rate"]
        axes.plot([low, high], [height, height], color=_COLOR, linewidth=2)
        axes.plot(mean, height, "o", color=_COLOR, markersize=6)
        for rate in row["seeds"].values():
            axes.plot(100 * rate, height, "|", color=_SEED, markersize=9)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(name.replace("_", " "), fontsize=10, loc="left")
    axes.grid(axis="x", color="#dddddd")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
