"""Writes a LeRobot v3.0 dataset, one episode at a time, images as PNG inside parquet or as mp4.

Everything goes to a temporary folder beside the target, which takes the target's name only when the
dataset is complete: nothing half-written is ever found under it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlarl.data.episode import (
    ACTION,
    DATA_PATH,
    EPISODES_PATH,
    IMAGE_PREFIX,
    INDEX_COLUMNS,
    INFO_PATH,
    STATE,
    STATS_PATH,
    TASKS_PATH,
    VERSION,
    Episode,
)
from vlarl.data.feature_stats import ImageStats, VectorStats
from vlarl.data.png import encode_png
from vlarl.data.video_track import CHUNKS_SIZE, VIDEO_MEGABYTES, VIDEO_PATH, VideoTrack
from vlarl.errors import UserError
from vlarl.types import CameraSpec

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_DATA_MEGABYTES = 100


class LeRobotWriter:
    """A context manager: `add` episodes within it; leaving it without an error completes the set.

    Raises:
        UserError: if `path` exists already, or for a `video` that cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        cameras: Sequence[CameraSpec],
        action_names: Sequence[str],
        state_dim: int,
        robot_type: str,
        state_names: Sequence[str] = (),
        video: str = "",
    ) -> None:
        """Create the temporary folder.

        Args:
            path: folder to write.
            fps: control frequency in Hz.
            cameras: of every episode.
            action_names: of the `c` channels.
            state_dim: `d`; with 0 the dataset has no state.
            robot_type: as `info.json` names it.
            state_names: of the `d` channels, where they have names.
            video: codec of `video_files.CODECS`, which loses detail; empty means PNG, which does
                not.
        """
        if state_names and len(state_names) != state_dim:
            raise ValueError(f"{len(state_names)} state_names for a state of {state_dim} numbers")
        self.path = Path(path)
        if self.path.exists():
            raise UserError(f"{self.path} exists already: choose another folder or remove it")
        self._tracks = {c.name: VideoTrack(c, fps, video) for c in cameras if video}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{self.path.name}-"
        self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.path.parent))
        self._fps, self._cameras = fps, tuple(cameras)
        self._action_names, self._robot_type = list(action_names), robot_type
        self._state_dim, self._state_names = state_dim, list(state_names)
        in_parquet = () if video else self._cameras
        self._schema = _data_schema(in_parquet, state_dim, len(self._action_names))
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames, self._file = 0, 0
        self._data: pq.ParquetWriter | None = None
        self._vectors = {key: VectorStats() for key in (STATE, ACTION) if key in self._schema.names}
        self._pictures = {camera.name: ImageStats() for camera in self._cameras}

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the dataset, or throw away what was written if the block failed."""
        try:
            if self._data is not None:
                self._data.close()
            for track in self._tracks.values():
                track.close()
            if kind is None:
                self._write_meta()
                # mkdtemp made it private; a dataset is read by whoever may read its parent.
                self._folder.chmod(0o755)
                os.replace(self._folder, self.path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, episode: Episode) -> None:
        """Append one episode.

        Raises:
            ValueError: if its cameras, image sizes, or state and action widths differ from the
                dataset's.
        """
        self._check(episode)
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        count = len(episode)
        frames = np.arange(count)
        columns: dict[str, Any] = {
            IMAGE_PREFIX + camera.name: pa.array(
                [{"bytes": encode_png(i), "path": None} for i in episode.images[camera.name]],
                _IMAGE,
            )
            for camera in self._cameras
            if camera.name not in self._tracks
        }
        if STATE in self._vectors:
            columns[STATE] = _vectors(episode.state)
        columns[ACTION] = _vectors(episode.action)
        columns["timestamp"] = (frames / self._fps).astype(np.float32)
        columns["frame_index"] = frames
        columns["episode_index"] = np.full(count, len(self._episodes))
        columns["index"] = self._frames + frames
        columns["task_index"] = np.full(count, task)
        place = self._open_file()
        assert self._data is not None
        self._data.write_table(pa.table(columns, schema=self._schema), row_group_size=count)
        videos: dict[str, Any] = {}
        for name, track in self._tracks.items():
            videos |= track.add(self._folder, episode.images[name])
        self._episodes.append(
            {
                "episode_index": len(self._episodes),
                "tasks": [episode.instruction],
                "length": count,
                **{f"data/{key}": value for key, value in place.items()},
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + count,
                **videos,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **episode.extra,
            }
        )
        self._frames += count
        for key, values in ((STATE, episode.state), (ACTION, episode.action)):
            if key in self._vectors:
                self._vectors[key].add(values)
        for name, stats in self._pictures.items():
            stats.add(episode.images[name])

    def _check(self, episode: Episode) -> None:
        expected = {c.name: (c.height, c.width, 3) for c in self._cameras}
        found = {name: images.shape[1:] for name, images in episode.images.items()}
        if found != expected:
            raise ValueError(f"episode images are {found}, the dataset's are {expected}")
        widths = (episode.state.shape[1], episode.action.shape[1])
        if widths != (self._state_dim, len(self._action_names)):
            raise ValueError(
                f"episode state and action have widths {widths}, "
                f"the dataset's {(self._state_dim, len(self._action_names))}"
            )

    def _open_file(self) -> dict[str, int]:
        """Make sure that a data file with room is open; returns its chunk and file index."""
        place = {"chunk_index": self._file // CHUNKS_SIZE, "file_index": self._file % CHUNKS_SIZE}
        path = self._folder / DATA_PATH.format(**place)
        if self._data is not None and path.stat().st_size > _DATA_MEGABYTES * 2**20:
            self._data.close()
            self._data = None
            self._file += 1
            return self._open_file()
        if self._data is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # PNG bytes do not compress further, so only the numbers are worth it.
            plain = {IMAGE_PREFIX + c.name + ".bytes": "NONE" for c in self._cameras}
            others = {n: "SNAPPY" for n in self._schema.names if not n.startswith(IMAGE_PREFIX)}
            self._data = pq.ParquetWriter(path, self._schema, compression=plain | others)
        return place

    def _write_meta(self) -> None:
        if not self._episodes:
            raise UserError(f"no episodes were added to {self.path}: a dataset needs at least one")
        (self._folder / "meta").mkdir()
        stats = {name: stats.to_dict() for name, stats in self._vectors.items()}
        stats |= {IMAGE_PREFIX + name: s.to_dict() for name, s in self._pictures.items()}
        (self._folder / STATS_PATH).write_text(json.dumps(stats, indent=2))
        (self._folder / INFO_PATH).write_text(json.dumps(self._info(), indent=2))
        pq.write_table(_tasks_table(self._tasks), self._folder / TASKS_PATH)
        episodes = self._folder / EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)

    def _info(self) -> dict[str, Any]:
        features: dict[str, dict[str, Any]] = {}
        for camera in self._cameras:
            key, track = IMAGE_PREFIX + camera.name, self._tracks.get(camera.name)
            features[key] = {
                "dtype": "video" if track else "image",
                "shape": [camera.height, camera.width, 3],
                "names": ["height", "width", "channels"],
            }
            if track:
                features[key]["info"] = track.info
        if self._state_dim:
            names = self._state_names or None
            features[STATE] = {"dtype": "float32", "shape": [self._state_dim], "names": names}
        features[ACTION] = {
            "dtype": "float32",
            "shape": [len(self._action_names)],
            "names": self._action_names,
        }
        for name in INDEX_COLUMNS:
            dtype = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": dtype, "shape": [1], "names": None}
        return {
            "codebase_version": VERSION,
            "robot_type": self._robot_type,
            "fps": int(self._fps) if float(self._fps).is_integer() else self._fps,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": _DATA_MEGABYTES,
            "video_files_size_in_mb": VIDEO_MEGABYTES,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._tracks else None,
            "features": features,
        }


def _data_schema(cameras: Sequence[CameraSpec], state_dim: int, channels: int) -> pa.Schema:
    fields = [(IMAGE_PREFIX + camera.name, _IMAGE) for camera in cameras]
    fields += [(STATE, _vector_type(state_dim))] if state_dim else []
    fields += [(ACTION, _vector_type(channels))]
    fields += [(n, pa.float32() if n == "timestamp" else pa.int64()) for n in INDEX_COLUMNS]
    return pa.schema(fields)


def _vector_type(width: int) -> pa.DataType:
    """LeRobot's reader takes a feature of shape [1] for a number, not for a list of one."""
    return pa.float32() if width == 1 else pa.list_(pa.float32(), width)


def _vectors(values: NDArray[np.float32]) -> pa.Array:
    """[T, d] as T lists of d numbers, or as T numbers."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    width = values.shape[1]
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def _tasks_table(tasks: dict[str, int]) -> pa.Table:
    """The table of tasks, with the metadata by which pandas takes `task` as its index."""
    table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)})
    column = {"metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64"}
            | {"numpy_type": "int64"}
            | column,
            {"name": "task", "field_name": "task", "pandas_type": "unicode"}
            | {"numpy_type": "object"}
            | column,
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
