"""Rows of an episode out of parquet files that stay open, with a bounded memory of row groups.

One object belongs to one process: after a fork or unpickling it starts with nothing open, so that
workers of a DataLoader share no file with their parent. Least recently used goes first.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlarl.data.lerobot_meta import open_parquet
from vlarl.errors import UserError

OPEN_FILES = 128
"""At most, of each process: below the usual limit of 1024 with 7 workers to spare."""


class _OpenFile(NamedTuple):
    file: pq.ParquetFile
    group_starts: NDArray[np.int64]
    """The row at which each row group starts, and the end."""
    episodes: dict[int, tuple[int, int]]
    """episode -> first row and the row after its last."""


class EpisodeRows:
    """Reads the rows of one episode, whichever row groups they are in.

    Attributes:
        opened: how many files were opened so far; a file that is used again while it is among the
            last `OPEN_FILES` is not opened again.
        cached_bytes: what the remembered row groups take.
    """

    def __init__(self, cache_bytes: int = 0) -> None:
        """Remember row groups of up to `cache_bytes` in all, as they are stored: not decoded."""
        self._cache_bytes = cache_bytes
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self.opened, self.cached_bytes = 0, 0
        self._files: OrderedDict[Path, _OpenFile] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int, tuple[str, ...]], pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Only what a fresh object needs."""
        return {"_cache_bytes": self._cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._cache_bytes = state["_cache_bytes"]
        self._forget()

    def count(self, path: Path, episode: int) -> int:
        """How many rows of an episode the file holds, together in one place.

        Raises:
            UserError: if the file is missing or broken.
        """
        start, stop = self._open(path).episodes.get(episode, (0, 0))
        return stop - start

    def read(self, path: Path, episode: int, length: int, columns: tuple[str, ...]) -> pa.Table:
        """The rows of one episode, `columns` only, reading no row group twice in a row.

        Raises:
            UserError: if the file is missing or broken, or holds another number of its rows.
        """
        opened = self._open(path)
        start, stop = opened.episodes.get(episode, (0, 0))
        if stop - start != length:
            raise UserError(f"{path}: {stop - start} of the {length} frames of episode {episode}")
        starts = opened.group_starts
        first = int(np.searchsorted(starts, start, side="right")) - 1
        last = int(np.searchsorted(starts, stop, side="left"))
        groups = [self._group(path, opened, group, columns) for group in range(first, last)]
        return pa.concat_tables(groups).slice(start - int(starts[first]), length)

    def _open(self, path: Path) -> _OpenFile:
        if self._process != os.getpid():
            self._forget()
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        file = open_parquet(path)
        self.opened += 1
        counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        self._files[path] = _OpenFile(file, np.cumsum([0, *counts]), _episodes_of(file, path))
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)
        return self._files[path]

    def _group(
        self, path: Path, opened: _OpenFile, group: int, columns: tuple[str, ...]
    ) -> pa.Table:
        key = (path, group, columns)
        if key in self._groups:
            self._groups.move_to_end(key)
            return self._groups[key]
        table = read_group(opened.file, path, group, columns)
        if table.nbytes <= self._cache_bytes:
            self._groups[key] = table
            self.cached_bytes += table.nbytes
            while self.cached_bytes > self._cache_bytes:
                self.cached_bytes -= self._groups.popitem(last=False)[1].nbytes
        return table


def read_group(file: pq.ParquetFile, path: Path, group: int, columns: tuple[str, ...]) -> pa.Table:
    """One row group of an open file.

    Raises:
        UserError: if it is damaged, or lacks one of `columns`.
    """
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    try:
        # Without Arrow's threads, which do not survive the fork of a DataLoader's worker.
        return file.read_row_group(group, list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _episodes_of(file: pq.ParquetFile, path: Path) -> dict[int, tuple[int, int]]:
    """Where the rows of each episode are; one that is in two places is nowhere."""
    groups = range(file.num_row_groups)
    tables = [read_group(file, path, group, ("episode_index",)) for group in groups]
    if not tables:
        return {}
    numbers = pa.concat_tables(tables)["episode_index"].to_numpy()
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
    stops = [*starts[1:].tolist(), len(numbers)]
    found: dict[int, tuple[int, int]] = {}
    for start, stop in zip(starts.tolist(), stops, strict=True):
        number = int(numbers[start])
        found[number] = (0, 0) if number in found else (start, stop)
    return found


def matrix_of(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """[T, d] of a column of lists of equal length, or [T, 1] of one of numbers.

    Raises:
        ValueError: if the lists differ in length, or are no numbers.
    """
    values = column.combine_chunks()
    if not (pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type)):
        return values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, 1)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    if len(values) == 0 or len(flat) % len(values):
        raise ValueError(f"{len(flat)} numbers in {len(values)} lists")
    return flat.astype(np.float32).reshape(len(values), -1)
