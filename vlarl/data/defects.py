"""One pass over a dataset that finds what is wrong with it, each defect with its place.

`inspect_dataset` reads; the `check_*` functions judge what was read and touch no file. What a
missing frame drags along (statistics that count one frame more) is not reported again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlarl.data.episode import ACTION, STATE
from vlarl.data.lerobot_meta import DatasetMeta, EpisodeRow
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.parquet_rows import matrix_of
from vlarl.data.png import MissingImage
from vlarl.data.stored_stats import check_statistics
from vlarl.errors import UserError

UNREADABLE, MISSING, CORRUPT = "unreadable_file", "missing_frame", "corrupt_frame"
TIMESTAMP, LANGUAGE, STATIC, LENGTH = "timestamp", "language", "static_actions", "length"
STATISTICS, METADATA = "statistics", "metadata"
BROKEN = (UNREADABLE, MISSING, CORRUPT)
"""Kinds after which an episode is not whole."""
TIMESTAMP_TOLERANCE = 1e-4
"""Seconds, as LeRobot has it."""
STILL = 1e-3
"""Share of a channel's usual range below which it counts as standing still."""
LENGTH_FACTOR, LENGTH_DEVIATIONS = 3.0, 4.0
"""A length is anomalous beyond this factor and this many robust deviations from the median."""
CACHE_BYTES = 64 * 2**20
"""Of row groups, since a group of another writer's may hold many episodes."""


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong."""

    kind: str
    episode: int | None
    """None for what concerns the whole dataset."""
    frame: int | None
    """From the episode's first; None for what concerns the whole episode."""
    message: str


@dataclass
class Inspection:
    """One episode as it was found. Arrays have a row for each frame that is there."""

    row: EpisodeRow
    frame_index: NDArray[np.int64]
    """[n]"""
    timestamp: NDArray[np.float64]
    """[n] seconds"""
    task_index: NDArray[np.int64]
    """[n]"""
    vectors: dict[str, NDArray[np.float32]]
    """feature -> [n, d], of `action` and `observation.state`, where the dataset has them."""
    defects: list[Defect] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every frame is there and sound."""
        return not any(defect.kind in BROKEN for defect in self.defects)

    @property
    def motion(self) -> NDArray[np.float32]:
        """[n, c] the actions, or without them the state."""
        return self.vectors[ACTION] if ACTION in self.vectors else self.vectors[STATE]

    def note(self, kind: str, frame: int | None, message: str) -> None:
        """One more defect of this episode."""
        self.defects.append(Defect(kind, self.row.index, frame, message))


def validate(path: str | Path, progress: Callable[[int], None] | None = None) -> list[Defect]:
    """Every defect of a dataset, by episode and frame.

    Args:
        path: dataset folder, v3.0 or v2.1.
        progress: called with the number of episodes so far.
    """
    try:
        reader = LeRobotReader(path, CACHE_BYTES)
    except UserError as error:
        return [Defect(METADATA, None, None, str(error))]
    found = inspect_dataset(reader, progress)
    defects = [defect for inspection in found for defect in inspection.defects]
    if all(inspection.is_whole for inspection in found):
        vectors = [inspection.vectors for inspection in found]
        for episode, message in check_statistics(reader.meta, vectors):
            defects.append(Defect(STATISTICS, episode, None, message))
    return sorted(defects, key=lambda d: (d.episode is None, d.episode or 0, d.frame or 0))


def inspect_dataset(
    reader: LeRobotReader, progress: Callable[[int], None] | None = None
) -> list[Inspection]:
    """Every episode after looking at every frame of it, with all defects of its own.

    Keeps the numbers of all episodes, and no images.
    """
    found = []
    for row in reader.episodes:
        found.append(_inspected(reader, row))
        if progress is not None:
            progress(len(found))
    for inspection in found:
        check_timestamps(inspection, reader.fps)
        check_language(inspection, reader.meta)
    check_static(found)
    check_lengths(found)
    return found


def _inspected(reader: LeRobotReader, row: EpisodeRow) -> Inspection:
    nothing = np.zeros(0, np.int64)
    vectors = {k: np.zeros((0, reader.meta.width(k)), np.float32) for k in reader.stored}
    inspection = Inspection(row, nothing, nothing.astype(np.float64), nothing, vectors)
    try:
        count = reader.rows.count(row.file, row.index)
        if count:
            _read_numbers(reader, inspection, count)
        _check_presence(inspection)
        if count:
            _check_finite(inspection)
            _check_images(reader, inspection)
    except UserError as error:
        inspection.note(UNREADABLE, None, str(error))
    return inspection


def _read_numbers(reader: LeRobotReader, inspection: Inspection, count: int) -> None:
    row, index = inspection.row, ("frame_index", "timestamp", "task_index")
    table = reader.rows.read(row.file, row.index, count, (*index, *reader.stored))
    inspection.frame_index = table["frame_index"].to_numpy()
    inspection.timestamp = table["timestamp"].to_numpy().astype(np.float64)
    inspection.task_index = table["task_index"].to_numpy()
    for key in reader.stored:
        try:
            inspection.vectors[key] = matrix_of(table[key])
        except (ValueError, pa.ArrowException) as error:
            raise UserError(f"{row.file}: {key} of episode {row.index}: {error}") from error


def _check_presence(inspection: Inspection) -> None:
    row, frames = inspection.row, inspection.frame_index
    for frame in sorted(set(range(row.length)) - set(frames.tolist())):
        inspection.note(MISSING, frame, f"{row.file} has no such row")
    expected = np.arange(len(frames))
    surplus = np.flatnonzero((frames >= row.length) | (frames < 0))
    twice = expected[1:][np.diff(frames) == 0] if len(frames) else surplus
    for place in sorted({*surplus.tolist(), *twice.tolist()}):
        frame = int(frames[place])
        inspection.note(CORRUPT, frame, f"{row.file} has this row beyond meta's {row.length}")


def _check_finite(inspection: Inspection) -> None:
    for key, values in inspection.vectors.items():
        for place in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
            frame = int(inspection.frame_index[place])
            inspection.note(CORRUPT, frame, f"{key} is not finite")


def _check_images(reader: LeRobotReader, inspection: Inspection) -> None:
    row = inspection.row
    for camera in reader.cameras:
        try:
            pixels = reader.pixels(row, camera, len(inspection.frame_index))
        except UserError as error:
            inspection.note(UNREADABLE, None, str(error))
            continue
        for place, frame in enumerate(inspection.frame_index.tolist()):
            try:
                image = pixels(frame if camera.name in row.videos else place)
            except MissingImage as error:
                inspection.note(MISSING, frame, f"image of {camera.name} {error}")
            except ValueError as error:
                inspection.note(CORRUPT, frame, f"image of {camera.name} {error}")
            else:
                if (image == image[0, 0]).all():
                    words = f"image of {camera.name} is one flat color: a camera that dropped out"
                    inspection.note(CORRUPT, frame, words)


def check_timestamps(inspection: Inspection, fps: float) -> None:
    """Note every frame whose time is not `frame_index / fps`."""
    expected = inspection.frame_index / fps
    # A float32 of an hour is exact to a quarter of a millisecond only.
    rounding = np.spacing(np.abs(expected).astype(np.float32))
    off = np.abs(inspection.timestamp - expected)
    for place in np.flatnonzero(~(off <= np.maximum(TIMESTAMP_TOLERANCE, rounding))).tolist():
        time, grid = inspection.timestamp[place], expected[place]
        words = f"timestamp is {time:.4f} s, the grid of {fps:g} Hz has {grid:.4f} s"
        inspection.note(TIMESTAMP, int(inspection.frame_index[place]), words)


def check_language(inspection: Inspection, meta: DatasetMeta) -> None:
    """Note an instruction that is missing, blank, or none of the dataset's tasks."""
    row, known = inspection.row, set(meta.tasks.values())
    if not row.tasks:
        inspection.note(LANGUAGE, None, "the episode names no task")
    for sentence in row.tasks:
        if not sentence.strip():
            inspection.note(LANGUAGE, None, "the instruction is blank")
        elif sentence not in known:
            inspection.note(LANGUAGE, None, f"{sentence!r} is none of the dataset's tasks")
    for index in np.unique(inspection.task_index).tolist():
        named = meta.tasks.get(index)
        if named is not None and (named in row.tasks or not row.tasks):
            continue
        frame = int(inspection.frame_index[inspection.task_index == index][0])
        said = "no task" if named is None else f"{named!r}, which is not the episode's"
        inspection.note(LANGUAGE, frame, f"task_index {index} names {said}")


def usual_ranges(found: Sequence[Inspection]) -> NDArray[np.float64]:
    """[c] how far each channel of the actions goes within a sound episode, in their median.

    Zero where no episode is sound: nothing is known to be usual then.
    """
    ranges = [np.ptp(each.motion, axis=0) for each in found if each.is_whole]
    return np.median(ranges, axis=0) if ranges else np.zeros(found[0].motion.shape[1])


def check_static(found: Sequence[Inspection]) -> None:
    """Note episodes in which no channel of the action moves (near-zero variance)."""
    usual = usual_ranges(found)
    for each in found:
        if len(each.motion) > 1 and (np.ptp(each.motion, axis=0) <= STILL * usual).all():
            each.note(STATIC, None, "no action channel moves: a static recording")


def check_lengths(found: Sequence[Inspection]) -> None:
    """Note episodes far shorter or longer than the others."""
    logs = np.log([max(1, each.row.length) for each in found])
    off = np.abs(logs - np.median(logs))
    limit = max(np.log(LENGTH_FACTOR), LENGTH_DEVIATIONS * 1.4826 * float(np.median(off)))
    usual = float(np.exp(np.median(logs)))
    for place in np.flatnonzero(off > limit).tolist():
        words = f"{found[place].row.length} frames, where the median episode has {usual:.0f}"
        found[place].note(LENGTH, None, words)
