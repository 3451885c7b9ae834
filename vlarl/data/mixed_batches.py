"""Batches of a mixture: rows of several robots, hands, agents and conversations, by layout.

Rows whose embodiments see the same cameras make one `ChunkBatch`, whatever their channels and
horizons; conversations stand apart. Which samples, is `mixture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlarl.data.conversations import Conversation, ConversationSet
from vlarl.data.mixture import Groups, Mixture
from vlarl.data.samples import ChunkBatch, ChunkSource
from vlarl.observations import Observations
from vlarl.types import CameraSpec


@dataclass(frozen=True)
class EmbodiedChunks:
    """One dataset of a source."""

    place: int
    """Of its embodiment in the contract."""
    chunks: ChunkSource


@dataclass(frozen=True)
class Source:
    """One source of a mixture: datasets of actions, or conversations.

    Raises:
        ValueError: if it has neither, or both.
    """

    name: str
    weight: float
    datasets: tuple[EmbodiedChunks, ...] = ()
    conversations: ConversationSet | None = None

    def __post_init__(self) -> None:
        if bool(self.datasets) == (self.conversations is not None):
            raise ValueError(f"source {self.name!r} needs either datasets or conversations")

    @property
    def groups(self) -> Groups:
        """Its samples, numbered through all datasets, by embodiment and by task.

        A task is an instruction; conversations are one task of one embodiment.
        """
        if self.conversations is not None:
            return [[np.arange(len(self.conversations))]]
        found: dict[int, dict[str, list[NDArray[np.int64]]]] = {}
        first = 0
        for dataset in self.datasets:
            chunks, tasks = dataset.chunks, found.setdefault(dataset.place, {})
            # One sort instead of one search for each sentence: there may be as many as episodes.
            order = np.argsort(chunks.instructions, kind="stable")
            bounds = np.searchsorted(chunks.instructions[order], np.arange(len(chunks.sentences)))
            for sentence, samples in zip(
                chunks.sentences, np.split(order, bounds[1:]), strict=True
            ):
                if len(samples):
                    tasks.setdefault(sentence, []).append(first + samples)
            first += len(chunks)
        return [[np.concatenate(task) for task in tasks.values()] for tasks in found.values()]


@dataclass(frozen=True)
class MixedBatch:
    """The rows of one optimizer step."""

    chunks: tuple[ChunkBatch, ...]
    """Each of embodiments that see the same cameras."""
    conversations: tuple[Conversation, ...]

    def __len__(self) -> int:
        return len(self.conversations) + sum(len(part.actions) for part in self.chunks)


class MixedBatches:
    """The batches of a mixture: step `n` is a pure function of seed and `n`."""

    def __init__(
        self,
        sources: Sequence[Source],
        cameras: Sequence[tuple[CameraSpec, ...]],
        batch_size: int,
        seed: int,
    ) -> None:
        """`cameras` are those of each embodiment (`Contract.cameras_of`).

        Raises:
            ValueError: if there are no sources, or a weight is not finite and above zero.
        """
        self._sources, self._cameras, self._batch_size = tuple(sources), cameras, batch_size
        weights = [source.weight for source in sources]
        self._mixture = Mixture(weights, [source.groups for source in sources], seed)

    def batch(self, step: int) -> MixedBatch:
        """The rows of step `step` (the first is 0)."""
        size = self._batch_size
        owners, samples = self._mixture.at(np.arange(step * size, (step + 1) * size))
        parts: dict[tuple[CameraSpec, ...], list[ChunkBatch]] = {}
        conversations: list[Conversation] = []
        for number in np.unique(owners):
            source, wanted = self._sources[number], samples[owners == number]
            if source.conversations is not None:
                conversations += [source.conversations[index] for index in wanted.tolist()]
                continue
            starts = np.cumsum([0, *(len(dataset.chunks) for dataset in source.datasets)])
            within = np.searchsorted(starts, wanted, side="right") - 1
            for place in np.unique(within):
                dataset = source.datasets[place]
                cameras = self._cameras[dataset.place]
                rows = dataset.chunks.chunks(wanted[within == place] - starts[place])
                parts.setdefault(cameras, []).append(_embodied(rows, dataset.place, cameras))
        return MixedBatch(tuple(map(joined, parts.values())), tuple(conversations))


def _embodied(batch: ChunkBatch, place: int, cameras: tuple[CameraSpec, ...]) -> ChunkBatch:
    """The same rows with what their embodiment sees, and every channel's mask."""
    seen, count = batch.observations, len(batch.actions)
    channels = batch.channels
    if channels is None:
        channels = np.ones((count, batch.actions.shape[2]), bool)
    images = {camera.name: seen.images[camera.name] for camera in cameras}
    which = np.full(count, place)
    return ChunkBatch(
        Observations(images, seen.instructions, embodiment=which), batch.actions, channels
    )


def joined(parts: Sequence[ChunkBatch]) -> ChunkBatch:
    """The rows of all parts, one after another; actions are as wide and as long as the largest.

    Args:
        parts: with the same cameras, an embodiment for each row, and `channels`.
    """
    seen = [part.observations for part in parts]
    count = sum(len(part.actions) for part in parts)
    steps, width = np.max([part.actions.shape[1:] for part in parts], axis=0)
    actions = np.zeros((count, steps, width), np.float32)
    channels = np.zeros((count, width), bool)
    first = 0
    for part in parts:
        rows, own_steps, own_width = part.actions.shape
        actions[first : first + rows, :own_steps, :own_width] = part.actions
        assert part.channels is not None
        channels[first : first + rows, :own_width] = part.channels
        first += rows
    return ChunkBatch(
        Observations(
            {name: np.concatenate([each.images[name] for each in seen]) for name in seen[0].images},
            [sentence for each in seen for sentence in each.instructions],
            embodiment=np.concatenate(
                [each.embodiment for each in seen if each.embodiment is not None]
            ),
        ),
        actions,
        channels,
    )
