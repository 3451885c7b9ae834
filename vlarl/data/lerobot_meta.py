"""The `meta` folder of a LeRobot dataset, v3.0 or v2.1, as one record.

Both versions say the same things in different files; what follows reads one `DatasetMeta` and need
not know which it was. Leaves out the data itself (`lerobot_reader`) and the statistics
(`dataset_checks`). Whatever is missing or broken is a `UserError` that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlarl.data.episode import (
    ACTION,
    IMAGE_PREFIX,
    INFO_PATH,
    STATE,
    TASKS_PATH,
    VERSION,
)
from vlarl.errors import UserError
from vlarl.types import CameraSpec

LEGACY_VERSION = "v2.1"
LEGACY_EPISODES, LEGACY_TASKS = "meta/episodes.jsonl", "meta/tasks.jsonl"
_EPISODE_COLUMNS = ("episode_index", "tasks", "length")
_PLACE_COLUMNS = ("dataset_from_index", "dataset_to_index")
_INFO_KEYS = ("codebase_version", "fps", "features", "data_path", "total_episodes", "total_frames")


@dataclass(frozen=True)
class VideoSpan:
    """Where one camera's frames of an episode are."""

    file: Path
    start: float
    """Of the episode's first frame within the file, in seconds."""


@dataclass(frozen=True)
class EpisodeRow:
    """Where one episode's frames are."""

    index: int
    tasks: tuple[str, ...]
    """What it is said to show; LeRobot allows several sentences, or none."""
    length: int
    file: Path
    first: int
    """Index of its first frame within the dataset."""
    videos: dict[str, VideoSpan]
    """camera -> place, of the cameras that are stored as video."""
    extra: dict[str, Any]
    """Columns beyond LeRobot's own, such as `seed`."""

    @property
    def instruction(self) -> str:
        """The first of `tasks`; empty if there is none."""
        return self.tasks[0] if self.tasks else ""


@dataclass(frozen=True)
class DatasetMeta:
    """What a dataset says of itself."""

    path: Path
    info: dict[str, Any]
    """`info.json` as it stands."""
    fps: float
    """Control frequency, Hz."""
    cameras: tuple[CameraSpec, ...]
    """In the order of `info.json`."""
    tasks: dict[int, str]
    """`task_index` -> sentence."""
    episodes: tuple[EpisodeRow, ...]
    """In the order of their index, which counts from 0."""

    @property
    def is_legacy(self) -> bool:
        """Whether this is v2.1: one file for each episode."""
        return bool(self.info["codebase_version"] == LEGACY_VERSION)

    @property
    def total_frames(self) -> int:
        """Frames of all episodes."""
        return sum(row.length for row in self.episodes)

    def names(self, key: str) -> tuple[str, ...]:
        """Names of the channels of a vector feature; empty if the dataset does not say."""
        return _flat_names(self.info["features"].get(key, {}).get("names"))

    def width(self, key: str) -> int:
        """Channels of a vector feature; 0 if there is no such feature."""
        shape = self.info["features"].get(key, {}).get("shape", [0])
        return int(shape[0]) if shape else 1


def read_meta(path: str | Path) -> DatasetMeta:
    """Read and check `meta`; no data file is opened.

    Raises:
        UserError: if the folder is no dataset of a version that is read here, or is incomplete.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; `vlarl collect` makes a dataset")
    info = _read_json(folder / INFO_PATH)
    missing = [key for key in _INFO_KEYS if key not in info]
    if missing:
        raise UserError(f"{folder / INFO_PATH} lacks {', '.join(sorted(missing))}")
    version = info["codebase_version"]
    if version not in (VERSION, LEGACY_VERSION):
        raise UserError(
            f"{folder / INFO_PATH}: codebase_version {version!r}; {VERSION} and {LEGACY_VERSION} "
            "are read here. LeRobot's own converters bring older datasets to one of them"
        )
    if not isinstance(info["fps"], int | float) or not info["fps"] > 0:
        raise UserError(f"{folder / INFO_PATH}: fps = {info['fps']!r}: must be a number above zero")
    cameras = _cameras(folder, info["features"])
    read = (_legacy_tasks, _legacy_rows) if version == LEGACY_VERSION else (_tasks, _rows)
    meta = DatasetMeta(
        path=folder,
        info=info,
        fps=float(info["fps"]),
        cameras=cameras,
        tasks=read[0](folder),
        episodes=_numbered(folder, list(read[1](folder, info, _video_keys(info)))),
    )
    _check(meta)
    return meta


def _check(meta: DatasetMeta) -> None:
    path, info = meta.path / INFO_PATH, meta.info
    if ACTION not in info["features"] and STATE not in info["features"]:
        raise UserError(
            f"{path}: neither a feature {ACTION!r} nor {STATE!r}, from which actions could be made"
        )
    if (meta.total_frames, len(meta.episodes)) != (info["total_frames"], info["total_episodes"]):
        raise UserError(
            f"{path} promises {info['total_episodes']} episodes of {info['total_frames']} frames "
            f"in all; meta/episodes lists {len(meta.episodes)} of {meta.total_frames}"
        )


def _video_keys(info: dict[str, Any]) -> list[str]:
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def _cameras(folder: Path, features: dict[str, Any]) -> tuple[CameraSpec, ...]:
    cameras = []
    for key, feature in features.items():
        if feature["dtype"] not in ("image", "video"):
            continue
        shape, names = feature["shape"], _flat_names(feature.get("names"))
        if len(shape) != 3:
            raise UserError(f"{folder / INFO_PATH}: {key}: shape {shape} is not that of an image")
        # Older sets store [channels, height, width]; the names tell, where there are any.
        named_first = bool(names) and names[0] in ("channel", "channels")
        channels_first = named_first or (not names and shape[0] in (1, 3) and shape[2] > 3)
        height, width = shape[1:] if channels_first else shape[:2]
        cameras.append(CameraSpec(camera_name(key), int(height), int(width)))
    return tuple(cameras)


def camera_name(key: str) -> str:
    """The camera that a feature belongs to: `observation.images.ego` -> `ego`."""
    return key.removeprefix(IMAGE_PREFIX)


def _flat_names(names: Any) -> tuple[str, ...]:
    """LeRobot writes a list, or a mapping such as `{"motors": [...]}`, or nothing."""
    if isinstance(names, dict):
        return tuple(name for value in names.values() for name in _flat_names(value))
    if isinstance(names, list):
        parts = (_flat_names(name) if isinstance(name, list) else (str(name),) for name in names)
        return tuple(name for part in parts for name in part)
    return () if names is None else (str(names),)


def _numbered(folder: Path, rows: list[EpisodeRow]) -> tuple[EpisodeRow, ...]:
    if not rows:
        raise UserError(f"{folder}: meta lists no episodes")
    rows.sort(key=lambda row: row.index)
    if [row.index for row in rows] != list(range(len(rows))):
        raise UserError(f"{folder / 'meta'}: episodes are not numbered 0 to {len(rows) - 1}")
    return tuple(rows)


def _tasks(folder: Path) -> dict[int, str]:
    table = read_parquet(folder / TASKS_PATH)
    # pandas calls an index without a name so; LeRobot's reader names it `task` again.
    column = "task" if "task" in table.column_names else "__index_level_0__"
    if column not in table.column_names or "task_index" not in table.column_names:
        raise UserError(f"{folder / TASKS_PATH} lacks the columns task_index, task")
    pairs = zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True)
    return {int(index): str(task) for index, task in pairs}


def _legacy_tasks(folder: Path) -> dict[int, str]:
    rows = _read_lines(folder / LEGACY_TASKS, ("task_index", "task"))
    return {int(row["task_index"]): str(row["task"]) for row in rows}


def _rows(folder: Path, info: dict[str, Any], videos: list[str]) -> Iterator[EpisodeRow]:
    files = sorted((folder / "meta/episodes").glob("chunk-*/file-*.parquet"))
    if not files:
        raise UserError(f"{folder / 'meta/episodes'} holds no parquet files")
    places = [f"data/{key}" for key in ("chunk_index", "file_index")]
    wanted = [*_EPISODE_COLUMNS, *_PLACE_COLUMNS, *places]
    parts = ("chunk_index", "file_index", "from_timestamp")
    wanted += [f"videos/{key}/{part}" for key in videos for part in parts]
    for file in files:
        names = open_parquet(file).schema_arrow.names
        missing = [name for name in wanted if name not in names]
        if missing:
            raise UserError(f"{file} lacks the columns {', '.join(missing)}")
        extra = [n for n in names if "/" not in n and n not in wanted]
        # Without LeRobot's per-episode statistics, which are many and wide.
        for values in read_parquet(file, wanted + extra).to_pylist():
            spans = {
                camera_name(key): VideoSpan(
                    folder / _placed(info, "video_path", values, f"videos/{key}/", video_key=key),
                    float(values[f"videos/{key}/from_timestamp"]),
                )
                for key in videos
            }
            yield EpisodeRow(
                index=values["episode_index"],
                tasks=tuple(values["tasks"] or ()),
                length=values["length"],
                file=folder / _placed(info, "data_path", values, "data/"),
                first=values["dataset_from_index"],
                videos=spans,
                extra={name: values[name] for name in extra},
            )


def _placed(info: dict[str, Any], key: str, values: dict[str, Any], at: str, **more: str) -> str:
    place = {name: values[at + name] for name in ("chunk_index", "file_index")}
    return str(info[key].format(**place, **more))


def _legacy_rows(folder: Path, info: dict[str, Any], videos: list[str]) -> Iterator[EpisodeRow]:
    chunk_size, first = int(info.get("chunks_size", 1000)), 0
    rows = _read_lines(folder / LEGACY_EPISODES, _EPISODE_COLUMNS)
    for values in sorted(rows, key=lambda row: int(row["episode_index"])):
        index, length = int(values["episode_index"]), int(values["length"])
        place = {"episode_chunk": index // chunk_size, "episode_index": index}
        spans = {
            camera_name(key): VideoSpan(
                folder / info["video_path"].format(**place, video_key=key), 0.0
            )
            for key in videos
        }
        file = folder / info["data_path"].format(**place)
        extra = {key: value for key, value in values.items() if key not in _EPISODE_COLUMNS}
        tasks = tuple(str(task) for task in values["tasks"])
        yield EpisodeRow(index, tasks, length, file, first, spans, extra)
        first += length


def _read_json(path: Path) -> dict[str, Any]:
    return _parsed(path, lambda text: dict(json.loads(text)))


def _read_lines(path: Path, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects of a `.jsonl` file, each with the keys `wanted`."""

    def parse(text: str) -> list[dict[str, Any]]:
        return [dict(json.loads(line)) for line in text.splitlines() if line.strip()]

    rows = _parsed(path, parse)
    for number, row in enumerate(rows):
        missing = [key for key in wanted if key not in row]
        if missing:
            raise UserError(f"{path}: entry {number} lacks {', '.join(missing)}")
    return rows


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    if not path.is_file():
        raise UserError(f"{path} is missing: not a LeRobot dataset, or not all of one")
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole file.

    Raises:
        UserError: if it is missing or broken.
    """
    try:
        return open_parquet(path).read(columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """A file of which only the footer is read, the rest mapped into memory.

    Raises:
        UserError: if it is missing or no parquet file.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is truncated or no parquet file: {error}") from error
