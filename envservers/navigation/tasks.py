"""The tasks of the suite, after the three families of the paper's section 3.2.4.

Success is the same for all: to stand still near the goal, with no wall between. `sampling.py` draws
episodes in which the sentence is true; this file has the words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SUCCESS_DISTANCE = 1.0
"""Meters from the goal's center; rooms are about three meters wide."""
STILL_STEPS = 2
"""Consecutive control steps without a move that make a stop."""
STILL_MOVE, STILL_TURN = 0.1, 0.25
"""Meters and radians below which a waypoint is no move."""
TURNS = {"turn left": math.pi / 2, "turn right": -math.pi / 2, "turn back": math.pi}
"""Words of an instruction -> the heading change that brings the goal into view."""


@dataclass(frozen=True)
class Task:
    """One row of the table of tasks."""

    name: str
    family: str
    """Of section 3.2.4: instruction following, object searching or target tracking."""
    sentence: str
    """With the goal's `name` and, where there is one, the `turn` that goes first."""

    @property
    def follows(self) -> bool:
        """Whether the goal walks."""
        return self.family == "target tracking"


TASKS: tuple[Task, ...] = (
    Task("go_to_landmark", "instruction following", "go to the {name}"),
    Task("turn_and_go", "instruction following", "{turn}, go to the {name}"),
    Task("search_object", "object searching", "find the {name}"),
    Task("follow_target", "target tracking", "follow the {name}"),
)
TASK_BY_NAME: dict[str, Task] = {task.name: task for task in TASKS}


def find_tasks(names: Sequence[str] | None) -> tuple[Task, ...]:
    """The tasks of these names, in this order; None: all.

    Raises:
        ValueError: for an unknown name (listing the known ones), a repeated one, or an empty list.
    """
    chosen = tuple(TASK_BY_NAME) if names is None else tuple(names)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"tasks must be distinct and at least one, got {chosen}")
    for name in chosen:
        if name not in TASK_BY_NAME:
            raise ValueError(f"unknown navigation task {name!r}; known: {', '.join(TASK_BY_NAME)}")
    return tuple(TASK_BY_NAME[name] for name in chosen)
