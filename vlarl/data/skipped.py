"""Corrupt episodes that training meets: skipped, counted and named, up to a limit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlarl.data.lerobot_reader import LeRobotReader
from vlarl.errors import UserError


class SkippedEpisodes:
    """What could not be read of one dataset so far.

    Attributes:
        reasons: episode -> the first error met in it, in the order in which they were met.
        silent: whether another process tells of them.
    """

    def __init__(self, path: Path, episodes: int, limit: float) -> None:
        """`episodes` in all, of which a share of `limit` may be corrupt."""
        self._path, self._episodes, self._limit = path, episodes, limit
        self.reasons: dict[int, str] = {}
        self.silent = False

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, episode: int, error: UserError) -> None:
        """Note that `episode` is corrupt, and say so the first time.

        Raises:
            UserError: if these are too many, or all.
        """
        if episode not in self.reasons:
            self.reasons[episode] = str(error)
            if not self.silent:
                print(f"vlarl: episode {episode} is skipped: {error}", file=sys.stderr)
        if len(self) > self._limit * self._episodes or len(self) == self._episodes:
            names = ", ".join(str(number) for number in sorted(self.reasons))
            raise UserError(
                f"{self._path}: {len(self)} of {self._episodes} episodes are corrupt ({names}), "
                f"more than supervised.data.skip_limit={self._limit:g} allows; the last: {error}. "
                "`vlarl data validate` lists every defect, `vlarl data clean` leaves them out"
            )


def readable_actions(reader: LeRobotReader, skipped: SkippedEpisodes) -> NDArray[np.float32]:
    """[M, c] the actions of every episode that can be read, in order.

    Raises:
        UserError: if too many cannot.
    """
    return _readable(reader, skipped, lambda episode: reader.numbers(episode).action)


def readable_states(reader: LeRobotReader, skipped: SkippedEpisodes) -> NDArray[np.float32]:
    """[M, d] likewise the states."""
    return _readable(reader, skipped, reader.state)


def _readable(
    reader: LeRobotReader, skipped: SkippedEpisodes, read: Callable[[int], NDArray[np.float32]]
) -> NDArray[np.float32]:
    found = []
    for row in reader.episodes:
        try:
            found.append(read(row.index))
        except UserError as error:
            skipped.add(row.index, error)
    return np.concatenate(found)
