"""ManiSkill's tasks as data: names, instructions, step limits. No simulator needed.

Names and limits are those that `mani-skill` 3.0.1 registers. Its table-top tasks have no language:
their sentences are ours. Those of the WidowX tasks are SIMPLER's, which published policies hear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envservers.options import suggestion
from envservers.task_groups import Protocol, TaskGroups


@dataclass(frozen=True)
class Task:
    """One of ManiSkill's."""

    instruction: str
    max_steps: int
    """Control steps of an episode."""
    starts: int = 0
    """Initial states that there are; 0: drawn from a continuum."""


def without_version(tasks: Mapping[str, Task]) -> dict[str, tuple[str, ...]]:
    """The names by which tasks may be called, too."""
    return {name.partition("-")[0]: (name,) for name in tasks}


TABLE_TOP = {
    "PickCube-v1": Task("pick up the red cube and hold it at the green ball", 50),
    "PushCube-v1": Task("push the blue cube forward onto the round target", 50),
    "PullCube-v1": Task("pull the blue cube back onto the round target", 50),
    "StackCube-v1": Task("put the red cube on top of the green cube", 50),
    "LiftPegUpright-v1": Task("stand the peg upright on the table", 50),
    "PullCubeTool-v1": Task("take the L-shaped tool and pull the cube close with it", 100),
    "PlaceSphere-v1": Task("pick up the ball and put it into the shallow bin", 50),
    "PokeCube-v1": Task("take the peg and poke the cube with it onto the round target", 50),
    "RollBall-v1": Task("roll the ball onto the round target at the other side", 80),
    "StackPyramid-v1": Task(
        "put the red cube beside the green cube and the blue cube on top of both", 250
    ),
    "PegInsertionSide-v1": Task("pick up the peg and push its orange end into the hole", 100),
    "PlugCharger-v1": Task("pick up the charger and plug it into the socket", 200),
}
"""Those whose scenes the package holds, with one Panda arm."""

WIDOWX = {
    "PutSpoonOnTableClothInScene-v1": Task("put the spoon on the towel", 60, 24),
    "PutCarrotOnPlateInScene-v1": Task("put carrot on plate", 60, 24),
    "StackGreenCubeOnYellowCubeBakedTexInScene-v1": Task(
        "stack the green block on the yellow block", 60, 24
    ),
    "PutEggplantInBasketScene-v1": Task("put eggplant into yellow basket", 120, 64),
}
"""The four of Simpler-WidowX."""

WIDOWX_TRIALS = 24
"""Episodes of a task in the published protocol."""

GROUPS = TaskGroups(
    short=without_version(WIDOWX),
    protocols={"simpler": Protocol(tuple(WIDOWX), WIDOWX_TRIALS)},
)
"""Of the suite `simpler-widowx`."""


def chosen(
    suite: str, known: Mapping[str, Task], names: Sequence[str] | None, default: Sequence[str]
) -> tuple[str, ...]:
    """The tasks that an environment simulates.

    Args:
        suite: named in the message.
        known: what there is.
        names: with or without their version; None: the default.
        default: tasks.

    Raises:
        ValueError: for a name that there is none of, or one named twice, or none.
    """
    if names is None:
        return tuple(default)
    full = without_version(known)
    found = tuple(task for name in names for task in full.get(name, (name,)))
    for name in found:
        if name not in known:
            raise ValueError(
                f"unknown task {name!r} of {suite}; tasks: {', '.join(known)}."
                f"{suggestion(name, [*known, *full])}"
            )
    if not found or len(set(found)) < len(found):
        raise ValueError(f"tasks = {list(names)}: name at least one, and each once")
    return found
