"""What text-to-action pretraining learns from: sentences and actions, in batches (paper 5.2.1).

Full-sequence prediction takes a whole trajectory as one sample, whose prompt says how long it is.
Chunk prediction, the ablation, cuts it into windows of the robot's horizon, which nothing tells
apart but the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlarl.data.samples import ChunkBatch
from vlarl.data.trajectories import Trajectories
from vlarl.observations import Observations


def balanced(first: int, second: int, share: float) -> NDArray[np.int64]:
    """The samples of one pass over two sets, so that the first is a share of it.

    Each sample comes at least once; those of the set that is too small for its share come again.

    Args:
        first: size of the first set, numbered from 0.
        second: size of the second set, numbered from `first`.
        share: of the first set, in [0, 1]; a set that is empty gets none, whatever the share.

    Returns:
        Numbers of samples, those of the first set first.
    """
    if not first or not second:
        return np.arange(first + second)
    if share in (0.0, 1.0):
        return np.arange(first) if share else np.arange(first, first + second)
    size = max(first / share, second / (1 - share))
    counts = round(size * share), round(size * (1 - share))
    return np.concatenate(
        [np.arange(counts[0]) % first, first + np.arange(counts[1]) % second]
    )  # fmt: skip


class TextChunks:
    """Samples of several robots, a `ChunkSource` without images.

    Attributes:
        sentences: the different instructions.
        instructions: [samples] place of each one's in `sentences`.
        context_of: [samples] which context a sample has: samples with the same prompt share one.
        representatives: [contexts] a sample of each.
    """

    def __init__(
        self, robots: Sequence[Trajectories], first: int, share: float, horizons: Sequence[int] = ()
    ) -> None:
        """Number the samples.

        Args:
            robots: in the order of the contract's embodiments.
            first: how many of them, from the first, make up the first set.
            share: of the first set in what is drawn, see `balanced`.
            horizons: of each robot's windows; empty: whole trajectories.
        """
        self._robots, self._horizons = robots, tuple(horizons)
        items = [self._windows(place) for place in range(len(robots))]
        sizes = [len(own) for own in items]
        order = balanced(sum(sizes[:first]), sum(sizes[first:]), share)
        self._items = np.concatenate(items)[order]
        self.sentences, places = self._read_sentences()
        length = np.zeros(len(self._items), np.int64)
        if not horizons:
            for place, robot in enumerate(robots):
                own = self._items[:, 0] == place
                length[own] = robot.lengths[self._items[own, 1]]
        self.instructions, self._length_of = places, length
        prompts = np.stack([self._items[:, 0], places, length], axis=1)
        _, self.representatives, which = np.unique(
            prompts, axis=0, return_index=True, return_inverse=True
        )
        self.context_of = which.reshape(-1)

    def _windows(self, place: int) -> NDArray[np.int64]:
        """[samples, 3] robot, trajectory and first step of every sample of a robot."""
        lengths = self._robots[place].lengths
        each = self._horizons[place] if self._horizons else int(lengths.max(initial=1))
        counts = -(-lengths // each)
        rows = np.repeat(np.arange(len(lengths)), counts)
        windows = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
        return np.stack([np.full(len(rows), place), rows, each * windows], axis=1)

    def _read_sentences(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The different ones, and [samples] which is whose."""
        trajectories, which = np.unique(self._items[:, :2], axis=0, return_inverse=True)
        numbers: dict[str, int] = {}
        places = [
            numbers.setdefault(self._robots[robot].sentence(int(index)), len(numbers))
            for robot, index in trajectories.tolist()
        ]
        return tuple(numbers), np.array(places)[which.reshape(-1)]

    def __len__(self) -> int:
        return len(self._items)

    def prompts(self) -> list[tuple[int, str, int]]:
        """The different ones: robot, sentence, and control steps (0: the robot's horizon)."""
        return [
            (
                int(self._items[index, 0]),
                self.sentences[self.instructions[index]],
                int(self._length_of[index]),
            )
            for index in self.representatives
        ]

    def chunks(self, frames: NDArray[np.int64]) -> ChunkBatch:
        """The samples `frames` [B]; shorter ones repeat their last action."""
        items = self._items[frames]
        parts = [self._actions(*item) for item in items.tolist()]
        steps, channels = (max(part.shape[axis] for part in parts) for axis in (0, 1))
        actions = np.zeros((len(parts), steps, channels), np.float32)
        for row, part in zip(actions, parts, strict=True):
            row[: len(part), : part.shape[1]] = part
            row[len(part) :, : part.shape[1]] = part[-1]
        lengths = np.array([len(part) for part in parts])
        return ChunkBatch(
            Observations(
                {},
                tuple(self.sentences[place] for place in self.instructions[frames]),
                embodiment=items[:, 0] if len(self._robots) > 1 else None,
                steps=None if self._horizons else self._length_of[frames],
            ),
            actions,
            action_is_pad=np.arange(steps) >= lengths[:, None],
        )

    def _actions(self, place: int, index: int, start: int) -> NDArray[np.float32]:
        actions = self._robots[place].actions(index)
        if not self._horizons:
            return actions
        end = start + self._horizons[place]
        # A window that is cut short by the trajectory's end goes on with its last action.
        taken = actions[start:end]
        return np.concatenate([taken, np.repeat(taken[-1:], end - start - len(taken), axis=0)])
