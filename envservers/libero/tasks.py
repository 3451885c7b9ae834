"""LIBERO's tasks as data: names, instructions, groups, step limits, variants.

A task's name is `<group>/<name of its BDDL file>`. `tasks.txt` lists all 130 in the order of the
published benchmark, which is also the order that results are usually printed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envservers.options import suggestion
from vlarl.errors import UserError


@dataclass(frozen=True)
class Group:
    """Tasks that are evaluated together."""

    name: str
    folder: str
    """Of the BDDL files and the initial states, in the package."""
    max_steps: int
    """Control steps of an episode, as published evaluations have it."""


GROUPS = {
    group.name: group
    for group in (
        Group("spatial", "libero_spatial", 220),
        Group("object", "libero_object", 280),
        Group("goal", "libero_goal", 300),
        Group("long", "libero_10", 520),
        Group("90", "libero_90", 400),
    )
}

_SHIFTS = tuple(f"temp_{axis}0.{tenth}" for axis in "xy" for tenth in range(1, 6))
VARIANTS: dict[str, tuple[str, ...]] = {
    "object": ("spatial", "object", "goal", "long"),
    "swap": ("spatial", "object", "goal", "long"),
    "lan": ("spatial", "object", "goal", "long"),
    "task": ("spatial", "object", "goal", "long"),
    **dict.fromkeys(_SHIFTS, ("object",)),
}
"""Variant of LIBERO-PRO (arXiv:2510.03827) -> groups that have it under the same task names: other
looks of the object, objects that changed places, another wording, another goal, objects moved along
an axis."""

OWN_WORDING = ("lan", "task")
"""Variants whose instruction is that of the BDDL file; otherwise the file's name is the sentence,
which is what published policies were trained on."""

TRIALS = 50
"""Episodes of a task in the published protocol, and official initial states of each."""


def all_tasks() -> tuple[str, ...]:
    """The 130 names, group by group."""
    return tuple((Path(__file__).parent / "tasks.txt").read_text().split())


def chosen(split: str, tasks: Sequence[str] | None, variant: str = "") -> tuple[str, ...]:
    """The tasks that an environment simulates.

    Args:
        split: a group, or `all`; unused where `tasks` are given.
        tasks: names, with or without their group, or whole groups; None or empty: the split's.
        variant: of `VARIANTS`; empty: LIBERO itself.

    Raises:
        UserError: for what there is none of.
    """
    if tasks:
        names = [name for asked in tasks for name in _of(asked)]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise UserError(f"suite 'libero': tasks named twice: {', '.join(twice)}")
    elif split == "all":
        names = list(all_tasks())
    elif split in GROUPS:
        names = _of(split)
    else:
        allowed = [*GROUPS, "all"]
        raise UserError(
            f"suite 'libero': split = {split!r}: must be one of {', '.join(allowed)}."
            f"{suggestion(split, allowed)}"
        )
    _check_variant(variant, names)
    return tuple(names)


def _of(asked: str) -> list[str]:
    """Tasks that one word of the user's list names."""
    known = all_tasks()
    if asked in GROUPS:
        return [name for name in known if name.startswith(f"{asked}/")]
    found = [name for name in known if asked in (name, name.partition("/")[2])]
    if not found:
        bare = [name.partition("/")[2] for name in known]
        raise UserError(
            f"suite 'libero': unknown task {asked!r}; tasks are groups ({', '.join(GROUPS)}) or "
            f"names such as {known[0]!r}; all are in docs/suites/libero.md."
            f"{suggestion(asked, [*known, *bare])}"
        )
    return found


def _check_variant(variant: str, names: Sequence[str]) -> None:
    if variant and variant not in VARIANTS:
        raise UserError(
            f"suite 'libero': variant = {variant!r}: must be one of {', '.join(VARIANTS)}."
            f"{suggestion(variant, VARIANTS)}"
        )
    without = sorted({group_of(name).name for name in names} - set(VARIANTS.get(variant, GROUPS)))
    if without:
        raise UserError(
            f"suite 'libero': LIBERO-PRO has no variant {variant!r} of {', '.join(without)}; "
            f"it has it of {', '.join(VARIANTS[variant])}"
        )


def group_of(task: str) -> Group:
    """The group that a task's name begins with."""
    return GROUPS[task.partition("/")[0]]


def sentence(task: str) -> str:
    """The instruction that a task's name spells, without its scene."""
    words = task.partition("/")[2]
    return re.sub(r"^[A-Z_]+_SCENE\d+_", "", words).replace("_", " ")


def folder(task: str, variant: str = "") -> str:
    """Of the task's files in the package."""
    own = group_of(task).folder
    return f"{own}_{variant}" if variant else own
