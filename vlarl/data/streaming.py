"""Chunks of a dataset that is larger than memory, read when they are asked for.

The index of frames comes from `meta` alone. A batch opens no file that is open already, reads each
row group once, decodes the images it needs and forgets them. The samples are those of
`samples.ChunkDataset`, bit for bit, frame number by frame number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.samples import ChunkBatch, ChunkDataset, ChunkSource
from vlarl.data.skipped import SkippedEpisodes
from vlarl.errors import UserError
from vlarl.history import PastFrames
from vlarl.observations import Observations

Batch = TypeVar("Batch")


class StreamingChunks:
    """A map-style dataset for `torch.utils.data.DataLoader`, or to be asked for whole batches.

    With a DataLoader: `collate_fn=as_is`, since a batch is read in one go. Each worker opens files
    of its own, once, and has a cache of its own.

    A sample that cannot be read gives way to the first frame of the next episode that can, the same
    each time, so that batches stay a function of the files and the frame numbers.

    Attributes:
        reader: whose cache holds what is remembered.
        sentences: the different instructions.
        instructions: [F] index into `sentences`.
        skipped: corrupt episodes met so far in this process.
    """

    def __init__(
        self,
        reader: LeRobotReader,
        horizon: int,
        skipped: SkippedEpisodes,
        past: PastFrames | None = None,
    ) -> None:
        """`horizon` is `H`, `past` the frames of a history; nothing is read yet."""
        self.reader, self.horizon, self.skipped = reader, horizon, skipped
        self._past = past
        self.sentences = tuple(dict.fromkeys(row.instruction for row in reader.episodes))
        lengths = [row.length for row in reader.episodes]
        self._starts = np.cumsum([0, *lengths])
        places = {sentence: place for place, sentence in enumerate(self.sentences)}
        said = [places[row.instruction] for row in reader.episodes]
        self.instructions = np.repeat(np.array(said, np.int64), lengths)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, frame: int) -> ChunkBatch:
        """The sample that starts at `frame`, as a batch of one."""
        return self.chunks(np.array([frame]))

    def __getitems__(self, frames: Sequence[int]) -> ChunkBatch:
        """A batch; `DataLoader` prefers this method."""
        return self.chunks(np.asarray(frames))

    def chunks(self, frames: NDArray[np.int64]) -> ChunkBatch:
        """The samples that start at `frames` [B].

        Raises:
            UserError: if too many episodes are corrupt.
        """
        owners = np.searchsorted(self._starts, frames, side="right") - 1
        parts, places = [], []
        for owner in np.unique(owners):
            here = np.flatnonzero(owners == owner)
            # In the order of time, which a video is decoded in.
            here = here[np.argsort(frames[here], kind="stable")]
            parts.append(self._read(int(owner), frames[here] - self._starts[owner]))
            places.append(here)
        return _joined(parts, np.argsort(np.concatenate(places)))

    def _read(self, episode: int, offsets: NDArray[np.int64]) -> ChunkBatch:
        """Samples of one episode, or what takes their place."""
        try:
            return self._read_episode(episode, offsets)
        except UserError as error:
            if len(offsets) > 1:
                parts = [self._read(episode, offsets[i : i + 1]) for i in range(len(offsets))]
                return _joined(parts, np.arange(len(offsets)))
            self.skipped.add(episode, error)
            return self._read((episode + 1) % len(self.reader), np.zeros(1, np.int64))

    def _read_episode(self, episode: int, offsets: NDArray[np.int64]) -> ChunkBatch:
        row, numbers = self.reader.episodes[episode], self.reader.numbers(episode)
        steps = offsets[:, None] + np.arange(self.horizon)
        return ChunkBatch(
            Observations(
                self.reader.images(episode, offsets.tolist()),
                (row.instruction,) * len(offsets),
                state=numbers.state[offsets],
                history=self._history(episode, offsets),
            ),
            numbers.action[np.minimum(steps, row.length - 1)],
            action_is_pad=steps >= row.length,
        )

    def _history(self, episode: int, offsets: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        if self._past is None:
            return None
        wanted = self._past.before(offsets, np.zeros_like(offsets))
        frames, places = np.unique(wanted, return_inverse=True)
        (camera,) = (each for each in self.reader.cameras if each.name == self._past.camera)
        return self.reader.view(episode, camera, frames.tolist())[places.reshape(wanted.shape)]


def open_chunks(
    reader: LeRobotReader,
    horizon: int,
    memory_bytes: int,
    skipped: SkippedEpisodes,
    past: PastFrames | None = None,
    workers: int = 0,
) -> ChunkSource:
    """All of a dataset decoded in memory if it fits there, else what reads it as it goes.

    Of `workers` that read at once, each remembers its share of `memory_bytes`.

    Raises:
        UserError: if too many episodes are corrupt.
    """
    if reader.decoded_bytes <= memory_bytes:
        return ChunkDataset.read(reader, horizon, past, skipped)
    own = LeRobotReader(reader.path, memory_bytes // max(1, workers), reader.chosen)
    return StreamingChunks(own, horizon, skipped, past)


def _joined(parts: Sequence[ChunkBatch], order: NDArray[np.int64]) -> ChunkBatch:
    """The samples of all parts, in `order`."""
    seen = [part.observations for part in parts]
    names, sentences = seen[0].images, [text for each in seen for text in each.instructions]
    return ChunkBatch(
        Observations(
            {name: _rows([each.images[name] for each in seen], order) for name in names},
            tuple(sentences[place] for place in order),
            state=_rows([each.state for each in seen], order),
            history=None
            if seen[0].history is None
            else _rows([each.history for each in seen], order),
        ),
        _rows([part.actions for part in parts], order),
        action_is_pad=_rows([part.action_is_pad for part in parts], order),
    )


def _rows(arrays: Sequence[NDArray[Any] | None], order: NDArray[np.int64]) -> NDArray[Any]:
    """The rows of all arrays, which every part of `_read_episode` has, in `order`."""
    return np.concatenate([array for array in arrays if array is not None])[order]


def as_is(batch: Batch) -> Batch:
    """A `collate_fn` for what comes as a batch already."""
    return batch
