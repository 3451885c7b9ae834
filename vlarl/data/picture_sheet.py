"""A dataset at a glance: a row for each episode, with a few of its frames and its actions."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vlarl.data.lerobot_reader import LeRobotReader

_CELL_INCHES, _CURVE_INCHES = 1.3, 3.6
_DPI = 80


def draw_sheet(reader: LeRobotReader, episodes: Sequence[int], camera: str, frames: int) -> bytes:
    """A PNG: for each of `episodes`, `frames` images of `camera` and the curves of all channels.

    Each channel is drawn from 0 to 1 of its own range in the episodes that are shown.

    Raises:
        UserError: if an episode cannot be read.
    """
    numbers = [reader.numbers(index) for index in episodes]
    together = np.concatenate([each.action for each in numbers])
    low, span = together.min(0), np.ptp(together, axis=0)
    width = frames * _CELL_INCHES + _CURVE_INCHES
    figure = Figure((width, len(episodes) * (_CELL_INCHES + 0.35)), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    ratios = [1.0] * frames + [_CURVE_INCHES / _CELL_INCHES]
    grid = figure.add_gridspec(len(episodes), frames + 1, width_ratios=ratios)
    labels = reader.action_names or [str(channel) for channel in range(len(low))]
    for line, (index, each) in enumerate(zip(episodes, numbers, strict=True)):
        row = reader.episodes[index]
        shown = np.linspace(0, row.length - 1, frames).round().astype(int)
        images = reader.images(index, shown.tolist())[camera]
        for column, (frame, image) in enumerate(zip(shown.tolist(), images, strict=True)):
            axes = figure.add_subplot(grid[line, column])
            axes.imshow(image)
            axes.set_axis_off()
            axes.set_title(f"{frame}", fontsize=6, pad=1)
        axes = figure.add_subplot(grid[line, frames])
        unit = (each.action - low) / np.where(span > 0, span, 1.0)
        seconds = np.arange(row.length) / reader.fps
        for channel, label in enumerate(labels):
            axes.plot(seconds, unit[:, channel], linewidth=0.8, label=label)
        title = textwrap.shorten(f"{index}: {row.instruction}", 60)
        axes.set_title(title, fontsize=7, loc="left", pad=2)
        axes.set_ylim(-0.05, 1.05)
        axes.set_yticks([])
        axes.tick_params(labelsize=6)
        if line == 0:
            axes.legend(fontsize=5, ncols=3, loc="upper right", framealpha=0.7)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
