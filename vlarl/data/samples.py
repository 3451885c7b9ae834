"""Demonstrations in memory, served as (observation, action chunk) pairs in a resumable order.

Images stay uint8 until the processor turns a batch into patches. Letters: `B` samples, `F` frames,
`H` control steps of a chunk, `c` action channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlarl.data.episode import Episode
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.skipped import SkippedEpisodes
from vlarl.errors import UserError
from vlarl.history import PastFrames
from vlarl.observations import Observations


@dataclass(frozen=True)
class ChunkBatch:
    """`B` observations, each with the actions that followed."""

    observations: Observations
    actions: NDArray[np.float32]
    """[B, H, c] simulator units; repeats the episode's last action beyond its end. Where rows are
    of several embodiments, `H` and `c` are the largest; what is beyond a row's own is ignored."""
    channels: NDArray[np.bool_] | None = None
    """[B, c] those that count; None: all of them."""
    action_is_pad: NDArray[np.bool_] | None = None
    """[B, H] which steps lie beyond the episode's end; None: not known."""


class ChunkSource(Protocol):
    """What training takes batches from."""

    sentences: tuple[str, ...]
    """The different instructions."""
    instructions: NDArray[np.int64]
    """[number of samples] place of each one's in `sentences`."""

    def __len__(self) -> int:
        """Frames, each of which starts a sample."""
        ...

    def chunks(self, frames: NDArray[np.int64]) -> ChunkBatch:
        """The samples that start at `frames` [B]."""
        ...


class ChunkDataset:
    """All frames of some episodes, as arrays.

    Attributes:
        images: camera -> [F, height, width, 3] uint8.
        actions: [F, c] float32, simulator units.
        states: [F, d] float32, SI units.
        instructions: [F] index into `sentences`.
    """

    def __init__(
        self, episodes: Iterable[Episode], horizon: int, past: PastFrames | None = None
    ) -> None:
        """Take in `episodes` one by one; `horizon` is `H`, `past` what observations come with.

        Raises:
            ValueError: if there are no episodes.
        """
        kept = list(episodes)
        if not kept:
            raise ValueError("a training set needs at least one episode")
        self.horizon = horizon
        self.sentences = tuple(dict.fromkeys(episode.instruction for episode in kept))
        lengths = np.array([len(episode) for episode in kept])
        self.images = {
            name: np.concatenate([episode.images[name] for episode in kept])
            for name in kept[0].images
        }
        self.actions = np.concatenate([episode.action for episode in kept])
        self.states = np.concatenate([episode.state for episode in kept])
        places = [self.sentences.index(episode.instruction) for episode in kept]
        self.instructions = np.repeat(places, lengths)
        self._end = np.repeat(lengths.cumsum(), lengths)
        self._first = self._end - np.repeat(lengths, lengths)
        self._past = past

    @staticmethod
    def read(
        reader: LeRobotReader,
        horizon: int,
        past: PastFrames | None = None,
        skipped: SkippedEpisodes | None = None,
    ) -> ChunkDataset:
        """All episodes of a dataset folder that can be read; the others are noted in `skipped`.

        Raises:
            UserError: if too many cannot be read, or, without `skipped`, any.
        """

        def readable() -> Iterator[Episode]:
            for row in reader.episodes:
                try:
                    yield reader.episode(row.index)
                except UserError as error:
                    if skipped is None:
                        raise
                    skipped.add(row.index, error)

        return ChunkDataset(readable(), horizon, past)

    def __len__(self) -> int:
        return len(self.actions)

    def chunks(self, frames: NDArray[np.int64]) -> ChunkBatch:
        """The samples that start at `frames` [B]."""
        steps = frames[:, None] + np.arange(self.horizon)
        end = self._end[frames][:, None]
        return ChunkBatch(
            Observations(
                {name: images[frames] for name, images in self.images.items()},
                tuple(self.sentences[i] for i in self.instructions[frames]),
                history=self._history(frames),
                state=self.states[frames],
            ),
            self.actions[np.minimum(steps, end - 1)],
            action_is_pad=steps >= end,
        )

    def _history(self, frames: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """[B, n, height, width, 3] past frames of the same episodes."""
        past = self._past
        if past is None:
            return None
        return self.images[past.camera][past.before(frames, self._first[frames])]


def refuse_short(reader: LeRobotReader, horizon: int) -> None:
    """Refuse a dataset with an episode that is shorter than a chunk.

    Not for demonstrations that a run collects itself: of the expert's recoveries from mishaps, some
    are over in a step.

    Raises:
        UserError: naming the first such episode.
    """
    short = [row for row in reader.episodes if row.length < horizon]
    if short:
        raise UserError(
            f"dataset {reader.path}: episode {short[0].index} has {short[0].length} frames, and "
            f"{len(short)} of {len(reader)} episodes less than the {horizon} steps of a chunk. "
            "Repeat their last action: supervised.data.pad_short=true. Or leave them out: "
            f"vlarl data clean {reader.path} out=DIR filters=short min_frames={horizon}"
        )


class BatchSampler:
    """Which samples make up optimizer step `step`: a pure function of `(seed, step)`.

    Every sample comes once in each pass over the data, in an order drawn anew for each pass; a
    batch may straddle two passes. Resuming needs no state but the step.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        """`size` samples in all."""
        assert size > 0
        assert batch_size > 0
        self._size, self._batch_size, self._seed = size, batch_size, seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def indices(self, step: int) -> NDArray[np.int64]:
        """[B] samples of step `step` (the first is 0)."""
        places = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        passes, offsets = np.divmod(places, self._size)
        indices = np.empty(self._batch_size, np.int64)
        for number in np.unique(passes):
            here = passes == number
            indices[here] = self._order(int(number))[offsets[here]]
        return indices

    def _order(self, number: int) -> NDArray[np.int64]:
        if number not in self._orders:
            self._orders = {n: o for n, o in self._orders.items() if n == number - 1}
            random = np.random.default_rng([self._seed, number])
            self._orders[number] = random.permutation(self._size)
        return self._orders[number]
