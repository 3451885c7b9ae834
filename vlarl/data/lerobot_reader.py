"""Reads LeRobot v3.0 datasets whose images are stored in parquet (not as mp4).

Opening a dataset reads and checks its `meta` folder; `episode` reads one episode's rows. Whatever
is missing or broken is a `UserError` that names the file.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vlarl.data.episode import (
    ACTION,
    IMAGE_PREFIX,
    INFO_PATH,
    STATE,
    TASKS_PATH,
    VERSION,
    Episode,
)
from vlarl.errors import UserError
from vlarl.types import CameraSpec

_EPISODE_COLUMNS = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")


@dataclass(frozen=True)
class EpisodeRow:
    """Where one episode's frames are."""

    index: int
    instruction: str
    length: int
    file: Path
    first: int
    """Index of its first frame within the dataset."""
    extra: dict[str, Any]
    """Columns beyond LeRobot's own, such as `seed`."""


class LeRobotReader:
    """A dataset folder.

    Attributes:
        fps: control frequency, Hz.
        cameras: in the order of `info.json`.
        action_names: of the `c` channels.
        state_dim: `d`, numbers of a state.
        state_names: of the state's numbers; empty where `info.json` has none.
        episodes: one row for each episode.

    Raises:
        UserError: if the folder is no v3.0 dataset, is incomplete, or stores images as video.
    """

    def __init__(self, path: str | Path) -> None:
        """Read and check `meta`."""
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a folder; `vlarl collect` makes a dataset")
        self.info = _read_json(self.path / INFO_PATH)
        self._check_version()
        self.fps = float(self.info["fps"])
        features = self.info["features"]
        self.cameras = self._cameras(features)
        for key in (ACTION, STATE):
            if key not in features:
                raise UserError(f"{self.path / INFO_PATH}: no feature {key!r}")
        self.action_names = tuple(features[ACTION].get("names") or ())
        self.state_dim = int(features[STATE]["shape"][0])
        self.state_names = tuple(features[STATE].get("names") or ())
        self.episodes = self._episodes()
        self._open: dict[Path, tuple[pq.ParquetFile, NDArray[np.int64]]] = {}
        self._file_first: dict[Path, int] = {}
        for row in self.episodes:
            self._file_first.setdefault(row.file, row.first)
        total = sum(row.length for row in self.episodes)
        if (total, len(self.episodes)) != (self.info["total_frames"], self.info["total_episodes"]):
            raise UserError(
                f"{self.path / INFO_PATH} promises {self.info['total_episodes']} episodes of "
                f"{self.info['total_frames']} frames in all; meta/episodes lists "
                f"{len(self.episodes)} of {total}"
            )

    def __len__(self) -> int:
        return len(self.episodes)

    def episode(self, index: int) -> Episode:
        """Read and decode one episode.

        Raises:
            UserError: if its file is missing or broken, or holds other frames than `meta` says.
        """
        row = self.episodes[index]
        table = self._frames(row)
        images = {
            camera.name: _decode(table[IMAGE_PREFIX + camera.name], camera, row.file)
            for camera in self.cameras
        }
        state, action = _matrix(table[STATE]), _matrix(table[ACTION])
        return Episode(images, state, action, row.instruction, row.extra)

    def state(self, index: int) -> NDArray[np.float32]:
        """[T, d] the state of one episode, without its images."""
        return _matrix(self._frames(self.episodes[index], [STATE])[STATE])

    def actions(self) -> NDArray[np.float32]:
        """[M, c] every action of the dataset, in the order of episodes."""
        return self._all(ACTION)

    def states(self) -> NDArray[np.float32]:
        """[M, d] every state of the dataset, in the order of episodes."""
        return self._all(STATE)

    def _all(self, key: str) -> NDArray[np.float32]:
        return np.concatenate([_matrix(self._frames(row, [key])[key]) for row in self.episodes])

    def _open_data(self, path: Path) -> tuple[pq.ParquetFile, NDArray[np.int64]]:
        """A data file, kept open, and the row at which each of its groups starts (and its end)."""
        if path not in self._open:
            file = _open_parquet(path)
            counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            self._open[path] = file, np.cumsum([0, *counts])
        return self._open[path]

    def _check_version(self) -> None:
        path = self.path / INFO_PATH
        missing = {"codebase_version", "fps", "features", "data_path"} - self.info.keys()
        missing |= {"total_episodes", "total_frames"} - self.info.keys()
        if missing:
            raise UserError(f"{path} lacks {', '.join(sorted(missing))}")
        if self.info["codebase_version"] != VERSION:
            raise UserError(
                f"{path}: codebase_version {self.info['codebase_version']!r}; only {VERSION} is "
                "read here (LeRobot's own converter brings older datasets to it)"
            )

    def _cameras(self, features: dict[str, Any]) -> tuple[CameraSpec, ...]:
        cameras = []
        for key, feature in features.items():
            if feature["dtype"] == "video":
                raise UserError(
                    f"{self.path / INFO_PATH}: {key} is stored as video; only images in parquet "
                    "(dtype image) are read"
                )
            if feature["dtype"] == "image":
                height, width = feature["shape"][:2]
                cameras.append(CameraSpec(key.removeprefix(IMAGE_PREFIX), height, width))
        return tuple(cameras)

    def _episodes(self) -> tuple[EpisodeRow, ...]:
        folder = self.path / "meta/episodes"
        files = sorted(folder.glob("chunk-*/file-*.parquet"))
        if not files:
            raise UserError(f"{folder} holds no parquet files")
        _read_parquet(self.path / TASKS_PATH)
        rows = [row for file in files for row in self._rows_of(file)]
        rows.sort(key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(rows))):
            raise UserError(f"{folder}: episodes are not numbered 0 to {len(rows) - 1}")
        return tuple(rows)

    def _rows_of(self, file: Path) -> list[EpisodeRow]:
        rows = []
        for values in _read_parquet(file).to_pylist():
            missing = [name for name in _EPISODE_COLUMNS if name not in values]
            if missing:
                raise UserError(f"{file} lacks the columns {', '.join(missing)}")
            place = {key: values[f"data/{key}"] for key in ("chunk_index", "file_index")}
            extra = {k: v for k, v in values.items() if "/" not in k and k not in _EPISODE_COLUMNS}
            data = self.path / self.info["data_path"].format(**place)
            rows.append(
                EpisodeRow(
                    index=values["episode_index"],
                    instruction=values["tasks"][0],
                    length=values["length"],
                    file=data,
                    first=values["dataset_from_index"],
                    extra=extra,
                )
            )
        return rows

    def _frames(self, row: EpisodeRow, columns: list[str] | None = None) -> pa.Table:
        """The rows of one episode, reading no more row groups than hold them."""
        file, starts = self._open_data(row.file)
        start = row.first - self._file_first[row.file]
        stop = start + row.length
        if stop > starts[-1]:
            raise UserError(
                f"{row.file} ends before episode {row.index}: {starts[-1]} of {stop} frames"
            )
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, stop, side="left"))
        groups, skipped = list(range(first, last)), int(starts[first])
        wanted = None if columns is None else [*columns, "episode_index"]
        try:
            table = file.read_row_groups(groups, wanted).slice(start - skipped, row.length)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{row.file} is damaged: {error}") from error
        if set(table["episode_index"].to_pylist()) != {row.index}:
            raise UserError(f"{row.file}: rows of episode {row.index} are not where meta says")
        return table


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing: not a LeRobot dataset")
    try:
        return dict(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def _read_parquet(path: Path) -> pa.Table:
    try:
        return _open_parquet(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _open_parquet(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is truncated or no parquet file: {error}") from error


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """[T, d] of a column of lists of equal length."""
    lists = column.combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(lists), -1)


def _decode(column: pa.ChunkedArray, camera: CameraSpec, file: Path) -> NDArray[np.uint8]:
    """[T, height, width, 3] of a column of encoded images."""
    images = np.empty((len(column), camera.height, camera.width, 3), np.uint8)
    for frame, value in enumerate(column.to_pylist()):
        try:
            picture = np.asarray(Image.open(io.BytesIO(value["bytes"])).convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{file}: image {frame} of {camera.name} is damaged") from error
        if picture.shape != images.shape[1:]:
            raise UserError(
                f"{file}: image {frame} of {camera.name} is {picture.shape[1]} x "
                f"{picture.shape[0]}, info.json says {camera.width} x {camera.height}"
            )
        images[frame] = picture
    return images
