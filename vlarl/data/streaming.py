"""Chunks of a dataset that is larger than memory, read when they are asked for.

The index of frames comes from `meta` alone. A batch opens no file that is open already, reads each
row group once, decodes the images it needs and forgets them. The samples are those of
`samples.ChunkDataset`, bit for bit, frame number by frame number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.samples import ChunkBatch
from vlarl.data.skipped import SkippedEpisodes
from vlarl.errors import UserError

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
        skipped: corrupt episodes met so far in this process.
    """

    def __init__(self, reader: LeRobotReader, horizon: int, skipped: SkippedEpisodes) -> None:
        """`horizon` is `H`; nothing is read yet."""
        self.reader, self.horizon, self.skipped = reader, horizon, skipped
        self.sentences = tuple(dict.fromkeys(row.instruction for row in reader.episodes))
        self._starts = np.cumsum([0, *(row.length for row in reader.episodes)])

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
        return _joined(parts).take(np.argsort(np.concatenate(places)))

    def _read(self, episode: int, offsets: NDArray[np.int64]) -> ChunkBatch:
        """Samples of one episode, or what takes their place."""
        try:
            return self._read_episode(episode, offsets)
        except UserError as error:
            if len(offsets) > 1:
                return _joined(
                    [self._read(episode, offsets[i : i + 1]) for i in range(len(offsets))]
                )
            self.skipped.add(episode, error)
            return self._read((episode + 1) % len(self.reader), np.zeros(1, np.int64))

    def _read_episode(self, episode: int, offsets: NDArray[np.int64]) -> ChunkBatch:
        row, numbers = self.reader.episodes[episode], self.reader.numbers(episode)
        steps = offsets[:, None] + np.arange(self.horizon)
        return ChunkBatch(
            images=self.reader.images(episode, offsets.tolist()),
            instructions=(row.instruction,) * len(offsets),
            actions=numbers.action[np.minimum(steps, row.length - 1)],
            action_is_pad=steps >= row.length,
        )


def _joined(parts: Sequence[ChunkBatch]) -> ChunkBatch:
    return ChunkBatch(
        images={n: np.concatenate([part.images[n] for part in parts]) for n in parts[0].images},
        instructions=tuple(sentence for part in parts for sentence in part.instructions),
        actions=np.concatenate([part.actions for part in parts]),
        action_is_pad=np.concatenate([part.action_is_pad for part in parts]),
    )


def as_is(batch: Batch) -> Batch:
    """A `collate_fn` for what comes as a batch already."""
    return batch
