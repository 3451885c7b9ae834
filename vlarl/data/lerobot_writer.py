"""Writes a LeRobot v3.0 dataset, one episode at a time, images as PNG bytes inside parquet.

Everything goes to a temporary folder beside the target, which takes the target's name only when the
dataset is complete: nothing half-written is ever found under it. Leaves out videos (mp4).
"""

from __future__ import annotations

import io
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
from PIL import Image

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
from vlarl.errors import UserError
from vlarl.types import CameraSpec

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_CHUNKS_SIZE, _DATA_MEGABYTES, _VIDEO_MEGABYTES = 1000, 100, 200


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """One image [height, width, 3] as PNG, lossless and fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


class LeRobotWriter:
    """A context manager: `add` episodes within it; leaving it without an error completes the set.

    Raises:
        UserError: if `path` exists already.
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
    ) -> None:
        """Create the temporary folder.

        `fps` is the control frequency in Hz; `state_names` are of the `state_dim` numbers, if they
        have any.
        """
        if state_names and len(state_names) != state_dim:
            raise ValueError(f"{len(state_names)} state_names for a state of {state_dim} numbers")
        self.path = Path(path)
        if self.path.exists():
            raise UserError(f"{self.path} exists already: choose another folder or remove it")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{self.path.name}-"
        self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.path.parent))
        self._fps, self._cameras = fps, tuple(cameras)
        self._action_names, self._robot_type = list(action_names), robot_type
        self._schema = _data_schema(self._cameras, state_dim, len(self._action_names))
        self._state_dim, self._state_names = state_dim, list(state_names) or None
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames, self._file = 0, 0
        self._data: pq.ParquetWriter | None = None
        self._vectors = {STATE: VectorStats(), ACTION: VectorStats()}
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
        }
        columns[STATE] = _fixed_list(episode.state)
        columns[ACTION] = _fixed_list(episode.action)
        columns["timestamp"] = (frames / self._fps).astype(np.float32)
        columns["frame_index"] = frames
        columns["episode_index"] = np.full(count, len(self._episodes))
        columns["index"] = self._frames + frames
        columns["task_index"] = np.full(count, task)
        place = self._open_file()
        assert self._data is not None
        self._data.write_table(pa.table(columns, schema=self._schema), row_group_size=count)
        self._episodes.append(
            {
                "episode_index": len(self._episodes),
                "tasks": [episode.instruction],
                "length": count,
                **{f"data/{key}": value for key, value in place.items()},
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + count,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **episode.extra,
            }
        )
        self._frames += count
        self._vectors[STATE].add(episode.state)
        self._vectors[ACTION].add(episode.action)
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
        place = {"chunk_index": self._file // _CHUNKS_SIZE, "file_index": self._file % _CHUNKS_SIZE}
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
        features: dict[str, dict[str, Any]] = {
            IMAGE_PREFIX + camera.name: {
                "dtype": "image",
                "shape": [camera.height, camera.width, 3],
                "names": ["height", "width", "channels"],
            }
            for camera in self._cameras
        }
        features[STATE] = {
            "dtype": "float32",
            "shape": [self._state_dim],
            "names": self._state_names,
        }
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
            "chunks_size": _CHUNKS_SIZE,
            "data_files_size_in_mb": _DATA_MEGABYTES,
            "video_files_size_in_mb": _VIDEO_MEGABYTES,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": None,
            "features": features,
        }


def _data_schema(cameras: Sequence[CameraSpec], state_dim: int, channels: int) -> pa.Schema:
    fields = [(IMAGE_PREFIX + camera.name, _IMAGE) for camera in cameras]
    fields += [
        (STATE, pa.list_(pa.float32(), state_dim)),
        (ACTION, pa.list_(pa.float32(), channels)),
    ]
    fields += [(n, pa.float32() if n == "timestamp" else pa.int64()) for n in INDEX_COLUMNS]
    return pa.schema(fields)


def _fixed_list(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """[T, d] as T lists of d numbers."""
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


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
