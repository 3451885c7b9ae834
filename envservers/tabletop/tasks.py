"""The four tasks: what is said, what goes where, and when that is achieved.

Success is read from the physical state alone. Leaves out how long it must last (`suite.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envservers.tabletop.scene import (
    BASKET_HALF,
    BASKET_WALL,
    HALF_HEIGHT,
    OBJECTS,
    PLATE_RADIUS,
    TOWEL_HALF,
)

SLOW = 0.03
"""Meters per second below which an object counts as resting."""


@dataclass(frozen=True)
class Task:
    """One row of the table of tasks."""

    name: str
    phrases: tuple[str, ...]
    """Sentences of equal meaning; the episode's seed picks one."""
    source: str
    """Object that is carried."""
    target: str
    """Object it ends on or in."""

    @property
    def source_index(self) -> int:
        """Position of the source in `OBJECTS`."""
        return OBJECTS.index(self.source)

    @property
    def target_index(self) -> int:
        """Position of the target in `OBJECTS`."""
        return OBJECTS.index(self.target)


TASKS: tuple[Task, ...] = (
    Task("spoon_on_towel", ("put the spoon on the towel",), "spoon", "towel"),
    Task("carrot_on_plate", ("put the carrot on the plate",), "carrot", "plate"),
    Task(
        "green_on_yellow",
        ("stack the green block on the yellow block",),
        "green_block",
        "yellow_block",
    ),
    Task("eggplant_in_basket", ("put the eggplant in the basket",), "eggplant", "basket"),
)
TASK_BY_NAME: dict[str, Task] = {task.name: task for task in TASKS}


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in TASK_BY_NAME:
        raise ValueError(f"unknown tabletop task {name!r}; known: {', '.join(TASK_BY_NAME)}")
    return TASK_BY_NAME[name]


def find_tasks(names: Sequence[str] | None) -> tuple[Task, ...]:
    """The tasks of these names, in this order; None: all.

    Raises:
        ValueError: for an unknown name, a repeated one, or an empty list.
    """
    chosen = tuple(TASK_BY_NAME) if names is None else tuple(names)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"tasks must be distinct and at least one, got {chosen}")
    return tuple(find_task(name) for name in chosen)


def phrase(task: Task, seed: int) -> str:
    """The sentence that `seed` picks for a task."""
    return task.phrases[seed % len(task.phrases)]


def _inside(task: Task, offset: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n] whether offsets [n, 3], in the target's frame, are within its footprint and height."""
    x, y, z = np.abs(offset[:, 0]), np.abs(offset[:, 1]), offset[:, 2]
    resting = HALF_HEIGHT[task.target] + HALF_HEIGHT[task.source]
    on_top = np.abs(z - resting) < 0.008
    if task.target == "towel":
        return (x < TOWEL_HALF) & (y < TOWEL_HALF) & on_top
    if task.target == "plate":
        return (np.hypot(x, y) < PLATE_RADIUS) & on_top
    if task.target == "yellow_block":
        return (np.maximum(x, y) < 0.028) & on_top
    room = BASKET_HALF - 2 * BASKET_WALL
    return (x < room) & (y < room) & (z < HALF_HEIGHT["basket"])


def achieved(
    task: Task,
    positions: NDArray[np.float64],
    target_yaw: NDArray[np.float64],
    speed: NDArray[np.float64],
    touched: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """[n] whether the task's goal holds at this instant.

    Args:
        task: the task.
        positions: [n, 8, 3] centers of the objects.
        target_yaw: [n] rotation of the target about z.
        speed: [n] of the source, m/s.
        touched: [n] whether any part of the hand touches the source.
    """
    offset = positions[:, task.source_index] - positions[:, task.target_index]
    cosine, sine = np.cos(target_yaw), np.sin(target_yaw)
    local = np.stack(
        [
            cosine * offset[:, 0] + sine * offset[:, 1],
            cosine * offset[:, 1] - sine * offset[:, 0],
            offset[:, 2],
        ],
        axis=1,
    )
    return _inside(task, local) & (speed < SLOW) & ~touched
