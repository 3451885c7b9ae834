"""Writes what cleaning kept as a LeRobot v3.0 dataset, whatever version it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vlarl.data.cleaning import CleaningReport
from vlarl.data.episode import STATE, Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.lerobot_writer import LeRobotWriter
from vlarl.errors import UserError

REPORT_PATH = "meta/cleaning.json"


def write_cleaned(
    reader: LeRobotReader,
    report: CleaningReport,
    out: str | Path,
    video: str = "",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write the kept spans, each an episode that says where it was, and the report beside them.

    Args:
        reader: of the dataset that was cleaned.
        report: which spans are kept.
        out: folder that does not exist yet.
        video: as `LeRobotWriter` takes it.
        progress: called with the number of episodes so far.

    Raises:
        UserError: if nothing is kept, `out` exists, or a kept episode cannot be read after all.
    """
    if not report.kept:
        raise UserError(
            f"{reader.path}: the filters keep none of its {report.episodes} episodes: leave out "
            f"some of {', '.join(report.to_dict()['filters'])}"
        )
    width = reader.numbers(report.kept[0][0]).action.shape[1]
    with LeRobotWriter(
        out,
        fps=reader.fps,
        cameras=reader.cameras,
        action_names=reader.action_names or [f"action_{i}" for i in range(width)],
        state_dim=reader.meta.width(STATE),
        robot_type=str(reader.info.get("robot_type") or "unknown"),
        state_names=reader.meta.names(STATE),
        video=video,
    ) as writer:
        shared = _shared_columns(reader)
        for number, (index, start, stop) in enumerate(report.kept):
            row, numbers = reader.episodes[index], reader.numbers(index)
            extra = {key: row.extra[key] for key in shared}
            source: dict[str, Any] = {"source_episode": index, "source_frame": start}
            writer.add(
                Episode(
                    reader.images(index, np.arange(start, stop).tolist()),
                    numbers.state[start:stop],
                    numbers.action[start:stop],
                    row.instruction,
                    extra | source,
                )
            )
            if progress is not None:
                progress(number + 1)
    text = json.dumps(report.to_dict() | {"source": str(reader.path)}, indent=2)
    (Path(out) / REPORT_PATH).write_text(text)


def _shared_columns(reader: LeRobotReader) -> list[str]:
    """The further columns that every episode has, with one value in each."""
    kinds = (int, float, str, bool)
    columns = [
        {key for key, value in row.extra.items() if isinstance(value, kinds)}
        for row in reader.episodes
    ]
    return [key for key in reader.episodes[0].extra if all(key in each for each in columns)]
