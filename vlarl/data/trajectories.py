"""Whole trajectories with their sentences, and no images: the data of text-to-action pretraining.

Two kinds (paper section 5.2.1): synthetic ones of `vlarl synth t2a`, and real ones, LeRobot
episodes whose images are never read. Letters: `T` control steps, `c` action channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlarl.codec import ActionStats
from vlarl.data.exact_quantiles import ExactQuantiles
from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.data.skipped import SkippedEpisodes
from vlarl.errors import UserError
from vlarl.synthesis.dataset import SynthesisDataset


class Trajectories(Protocol):
    """Those of one robot."""

    lengths: NDArray[np.int64]
    """[N] control steps of each."""

    def sentence(self, index: int) -> str:
        """What trajectory `index` does."""
        ...

    def actions(self, index: int) -> NDArray[np.float32]:
        """[T, c] in the units of its robot."""
        ...


class SynthesizedTrajectories:
    """Those of one arm in a folder of `vlarl synth t2a`.

    The action is the position one control step later, which is what a position controller is told.
    """

    def __init__(self, dataset: SynthesisDataset, robot: str, stride: int = 1) -> None:
        """A control step is `stride` records long, the last of a trajectory maybe fewer."""
        self._dataset, self._indices, self._stride = dataset, dataset.indices(robot), stride
        self.lengths = -(-(dataset.lengths()[self._indices] - 1) // stride)

    def sentence(self, index: int) -> str:
        """What trajectory `index` does."""
        return self._dataset[self._indices[index]].instruction

    def actions(self, index: int) -> NDArray[np.float32]:
        """[T, joints + 1] joint positions in rad, and the gripper."""
        one = self._dataset[self._indices[index]]
        last = len(one.gripper) - 1
        taken = np.minimum(np.arange(1, self.lengths[index] + 1) * self._stride, last)
        return np.concatenate([one.joint_position[taken], one.gripper[taken, None]], axis=1)


class RecordedTrajectories:
    """Those episodes of a LeRobot dataset that can be read; their actions stay in memory."""

    def __init__(self, reader: LeRobotReader, skipped: SkippedEpisodes) -> None:
        """Read the actions, not the images.

        Raises:
            UserError: if too many episodes cannot be read.
        """
        self._sentences: list[str] = []
        self._actions: list[NDArray[np.float32]] = []
        for row in reader.episodes:
            try:
                actions = reader.numbers(row.index).action
            except UserError as error:
                skipped.add(row.index, error)
                continue
            self._actions.append(actions)
            self._sentences.append(row.instruction)
        self.lengths = np.array([len(actions) for actions in self._actions])

    def sentence(self, index: int) -> str:
        """What trajectory `index` does."""
        return self._sentences[index]

    def actions(self, index: int) -> NDArray[np.float32]:
        """[T, c] in the units of its robot."""
        return self._actions[index]


def every_action(source: Trajectories) -> Iterator[NDArray[np.float32]]:
    """[T, c] of each trajectory in turn."""
    return (source.actions(index) for index in range(len(source.lengths)))


def trajectory_stats(source: Trajectories) -> ActionStats:
    """Exact quantiles of every action, in one pass (paper eq. 5)."""
    quantiles = ExactQuantiles(int(source.lengths.sum()), (0.01, 0.99))
    for actions in every_action(source):
        quantiles.add(actions)
    low, high = quantiles.result().astype(np.float32)
    return ActionStats(low, high)
