"""Slots that share ManiSkill's physics on a GPU: rows of one environment, which step together.

Three things make rows what slots are, each with an episode of its own:

- An episode begins as `Scene.begin` deals it on the processor, and its state is put into the row.
  ManiSkill's own reset of some rows draws from the GPU's generator, from one seed for all of them,
  so that a start would be another scene on each kind of physics and in other company.
- Rows that are not told to act go on all the same. Each is put aside before, and put back before
  anybody looks at it or it acts again.
- Pictures of all rows are drawn at once, when the first of them is asked for.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.maniskill.kept import Kept
from envservers.maniskill.scene import Result, Scene

_CHANNELS = 7


class Batch:
    """A task's rows.

    Args:
        scene: of all rows, on the GPU.
        dealer: of one row, on the processor; the same task and robot.
    """

    def __init__(self, scene: Scene, dealer: Scene) -> None:
        self.scene, self._dealer = scene, dealer
        self.free = set(range(scene.rows))
        """Rows that nobody plays."""
        self._size = scene.kept()[0].physics.size
        self._running: set[int] = set()
        self._aside: dict[int, Kept] = {}
        self._astray = False
        """Whether a row that was put aside is not there what it was."""
        self._pictures: dict[str, NDArray[np.uint8]] | None = None

    def begin(self, row: int, seed: int) -> dict[str, float]:
        """Start the row's episode; returns ManiSkill's info."""
        info = self._dealer.begin(seed, {})
        self.put(row, self._dealer.kept()[0])
        return info

    def step(self, actions: Mapping[int, NDArray[np.float32]]) -> dict[int, Result]:
        """One control step of these rows alone, `actions` row -> [7] in our channels' units."""
        back = {row: self._aside[row] for row in actions if row in self._aside}
        if back and self._astray:
            self.scene.put(back)
        for row in back:
            del self._aside[row]
        still = self._running - actions.keys() - self._aside.keys()
        if still:
            self._aside |= self.scene.kept(still)
        every = np.zeros((self.scene.rows, _CHANNELS), np.float32)
        for row, action in actions.items():
            every[row] = action
        results = self.scene.step_all(every)
        self._astray, self._pictures = bool(self._aside), None
        return {row: results[row] for row in actions}

    def look(self) -> Scene:
        """The scene, each row what it is."""
        if self._astray and self._aside:
            self.scene.put(self._aside)
        self._astray = False
        return self.scene

    def draw(self, row: int) -> dict[str, NDArray[np.uint8]]:
        """Our name of a camera -> the row's picture."""
        scene = self.look()
        if self._pictures is None:
            self._pictures = scene.draw_all()
        return {camera: pictures[row] for camera, pictures in self._pictures.items()}

    def kept(self, row: int) -> Kept:
        """What the row is now."""
        return self.look().kept([row])[row]

    def put(self, row: int, kept: Kept) -> None:
        """Make the row what was kept.

        Raises:
            ValueError: for what was kept of another task.
        """
        if kept.physics.size != self._size:
            raise ValueError(
                f"this state of {self.scene.task} has {kept.physics.size} numbers, not {self._size}"
            )
        self._running.add(row)
        self._aside[row] = kept
        self._astray, self._pictures = True, None

    def leave(self, row: int) -> None:
        """Nobody plays the row any more."""
        self._running.discard(row)
        self._aside.pop(row, None)
        self.free.add(row)

    def close(self) -> None:
        """Free both scenes."""
        self.scene.close()
        self._dealer.close()


@dataclass(frozen=True)
class Row:
    """One of a batch; what it can do is `Scene`'s, of a row of its own."""

    batch: Batch
    number: int

    @property
    def task(self) -> str:
        """ManiSkill's name."""
        return self.batch.scene.task

    def begin(self, seed: int, _options: Mapping[str, object]) -> dict[str, float]:
        """Start the episode."""
        return self.batch.begin(self.number, seed)

    def step(self, action: NDArray[np.float32]) -> Result:
        """One control step, of this row alone."""
        return self.batch.step({self.number: action})[self.number]

    def draw(self) -> dict[str, NDArray[np.uint8]]:
        """Our name of a camera -> its picture."""
        return self.batch.draw(self.number)

    def state(self) -> NDArray[np.float32]:
        """[8] the hand in the base's frame."""
        return self.batch.look().state(self.number)

    def poses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[7] of the arm's base and [7] of the hand, in the world."""
        return self.batch.look().poses(self.number)

    def pose_of(self, thing: str) -> NDArray[np.float64]:
        """[7] of an actor in the world."""
        return self.batch.look().pose_of(thing, self.number)

    def kept(self) -> Kept:
        """What it is now."""
        return self.batch.kept(self.number)

    def put(self, kept: Kept) -> None:
        """Make it what was kept."""
        self.batch.put(self.number, kept)


def step_rows(actions: Mapping[Row, NDArray[np.float32]]) -> dict[Row, Result]:
    """One control step of each, those of a batch together."""
    batches: dict[Batch, dict[int, Row]] = {}
    for row in actions:
        batches.setdefault(row.batch, {})[row.number] = row
    results: dict[Row, Result] = {}
    for batch, rows in batches.items():
        stepped = batch.step({number: actions[row] for number, row in rows.items()})
        results |= {rows[number]: result for number, result in stepped.items()}
    return results


class Batches:
    """Every task's, as many rows each as there are slots; made when the task is first played.

    Args:
        make: a task's.
    """

    def __init__(self, make: Callable[[str], Batch]) -> None:
        self._make = make
        self._batches: dict[str, Batch] = {}

    def take(self, task: str) -> Row:
        """A free row of the task."""
        if task not in self._batches:
            self._batches[task] = self._make(task)
        batch = self._batches[task]
        number = min(batch.free)
        batch.free.remove(number)
        return Row(batch, number)

    def give(self, row: Row) -> None:
        """Let the next that plays its task have it."""
        row.batch.leave(row.number)

    def close(self) -> None:
        """Close every task's."""
        while self._batches:
            self._batches.popitem()[1].close()
        gc.collect()
