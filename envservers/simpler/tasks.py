"""SimplerEnv's prepackaged tasks (visual matching) as data: robot, time, published starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envservers.options import suggestion
from vlarl.errors import UserError

SPAWN_X, SPAWN_Y = (-0.35, -0.12), (-0.02, 0.42)
"""Meters: where the published evaluation puts the can, on a grid of 5 by 5."""
GRID = 5


@dataclass(frozen=True)
class Robot:
    """What SimplerEnv evaluates on."""

    name: str
    embodiment: str
    camera: str
    control_hz: float


@dataclass(frozen=True)
class Task:
    """One prepackaged task."""

    name: str
    robot: str
    steps: int
    """Control steps, after which its time is up."""
    starts: str
    """How a published start is named: `episode` (a number), `grid` (where the object lies) or
    `seed` (of the task's own random generator)."""
    published: int
    """Starts of the published evaluation."""
    spread: float = 0.0
    """Meters by which training moves the objects of an `episode` start; 0: not at all."""


ROBOTS = {
    robot.name: robot
    for robot in (
        Robot("widowx", "widowx_eef", "3rd_view_camera", 5.0),
        Robot("google_robot", "google_robot_eef", "overhead_camera", 3.0),
    )
}

_DRAWERS = tuple(
    f"google_robot_{verb}_{which}drawer"
    for verb in ("open", "close")
    for which in ("", "top_", "middle_", "bottom_")
)
_PLACES = tuple(
    f"google_robot_place_{what}" for what in (
        "in_closed_drawer", "in_closed_top_drawer", "in_closed_middle_drawer",
        "in_closed_bottom_drawer", "apple_in_closed_top_drawer",
    )
)  # fmt: skip
_CANS = tuple(
    f"google_robot_pick_{pose}coke_can" for pose in ("", "horizontal_", "vertical_", "standing_")
)

TASKS = {
    task.name: task
    for task in (
        Task("widowx_spoon_on_towel", "widowx", 60, "episode", 24, 0.02),
        Task("widowx_carrot_on_plate", "widowx", 60, "episode", 24, 0.02),
        Task("widowx_stack_cube", "widowx", 60, "episode", 24, 0.02),
        # The sink is small.
        Task("widowx_put_eggplant_in_basket", "widowx", 120, "episode", 24, 0.005),
        *(Task(name, "google_robot", 80, "grid", GRID**2) for name in _CANS),
        Task("google_robot_move_near", "google_robot", 80, "episode", 60),
        Task("google_robot_move_near_v1", "google_robot", 80, "episode", 60),
        *(Task(name, "google_robot", 113, "seed", 27) for name in _DRAWERS),
        *(Task(name, "google_robot", 200, "seed", 12) for name in _PLACES),
    )
}


def chosen(robot: str, tasks: Sequence[str] | None) -> tuple[tuple[str, ...], Robot]:
    """The tasks that an environment simulates, and their robot.

    Args:
        robot: whose; unused where `tasks` are given.
        tasks: names, or robots for all of their tasks; None or empty: the robot's.

    Raises:
        UserError: for what there is none of, twice the same, or tasks of two robots.
    """
    names = [name for asked in tasks or (robot,) for name in _of(asked)]
    if len(set(names)) < len(names):
        raise UserError(f"tasks = {list(tasks or ())}: one is named twice")
    robots = {TASKS[name].robot for name in names}
    if len(robots) > 1:
        raise UserError(
            "tasks of both robots: their controls differ, so make two suites of them (env.suites)"
        )
    return tuple(names), ROBOTS[robots.pop()]


def _of(asked: str) -> list[str]:
    if asked in ROBOTS:
        return [name for name, task in TASKS.items() if task.robot == asked]
    if asked not in TASKS:
        raise UserError(
            f"unknown task or robot {asked!r}; robots: {', '.join(ROBOTS)}; "
            f"tasks: docs/suites/simpler-env.md.{suggestion(asked, [*TASKS, *ROBOTS])}"
        )
    return [asked]
