"""MetaWorld's tasks by benchmark and by difficulty, and the evaluations of published tables.

Benchmarks are MetaWorld's own (Yu et al. 2019, arXiv:1910.10897, in the revision of Meta-World+,
arXiv:2505.11289). Difficulty is the grouping of Seo et al. 2022 ("Masked World Models for Visual
Control", arXiv:2206.14244, appendix), which tables of vision-language-action models follow
(LeRobot's `envs/metaworld_config.json` has the same): 10 episodes of each of the 50 tasks, the mean
of them, and that of the four difficulties.
"""

from __future__ import annotations

from collections.abc import Sequence

from envservers.metaworld.tasks import TASKS
from envservers.options import suggestion
from envservers.task_groups import Protocol, TaskGroups, expand

DIFFICULTY = {
    "easy": (
        "button-press-v3", "button-press-topdown-v3", "button-press-topdown-wall-v3",
        "button-press-wall-v3", "coffee-button-v3", "dial-turn-v3", "door-close-v3",
        "door-lock-v3", "door-open-v3", "door-unlock-v3", "drawer-close-v3", "drawer-open-v3",
        "faucet-close-v3", "faucet-open-v3", "handle-press-v3", "handle-press-side-v3",
        "handle-pull-v3", "handle-pull-side-v3", "lever-pull-v3", "plate-slide-v3",
        "plate-slide-back-v3", "plate-slide-back-side-v3", "plate-slide-side-v3", "reach-v3",
        "reach-wall-v3", "window-close-v3", "window-open-v3", "peg-unplug-side-v3",
    ),
    "medium": (
        "basketball-v3", "bin-picking-v3", "box-close-v3", "coffee-pull-v3", "coffee-push-v3",
        "hammer-v3", "peg-insert-side-v3", "push-wall-v3", "soccer-v3", "sweep-v3",
        "sweep-into-v3",
    ),
    "hard": (
        "assembly-v3", "hand-insert-v3", "pick-out-of-hole-v3", "pick-place-v3", "push-v3",
        "push-back-v3",
    ),
    "very-hard": (
        "shelf-place-v3", "disassemble-v3", "stick-pull-v3", "stick-push-v3",
        "pick-place-wall-v3",
    ),
}  # fmt: skip
"""Difficulty -> its tasks; every task is in one."""

_ML10_TRAIN = (
    "reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-close-v3",
    "button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3", "sweep-v3", "basketball-v3",
)  # fmt: skip
_ML45_TEST = (
    "bin-picking-v3", "box-close-v3", "hand-insert-v3", "door-lock-v3", "door-unlock-v3",
)  # fmt: skip

SPLITS = {
    "MT10": (
        "reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3",
        "drawer-close-v3", "button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3",
        "window-close-v3",
    ),
    "MT50": TASKS,
    "ML10-train": _ML10_TRAIN,
    "ML10-test": (
        "drawer-open-v3", "door-close-v3", "shelf-place-v3", "sweep-into-v3", "lever-pull-v3",
    ),
    "ML45-train": tuple(task for task in TASKS if task not in _ML45_TEST),
    "ML45-test": _ML45_TEST,
}  # fmt: skip
"""Benchmark -> its tasks."""

GROUPS = TaskGroups(
    groups={**SPLITS, **DIFFICULTY},
    reported=tuple(DIFFICULTY),
    protocols={name: Protocol((name,), 10) for name in ("MT50", "MT10")},
)


def find_tasks(names: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks that `names` of tasks, benchmarks and difficulties stand for, each once, in order.

    Raises:
        ValueError: for another name, or for none.
    """
    wanted = expand("metaworld", TASKS if names is None else names)
    for name in wanted:
        if name not in TASKS:
            near = suggestion(name, [*TASKS, *GROUPS.groups])
            raise ValueError(
                f"unknown task {name!r}; choose of the 50 tasks ({TASKS[0]} to {TASKS[-1]}: "
                f"docs/suites/metaworld.md) or of {', '.join(GROUPS.groups)}.{near}"
            )
    if not wanted:
        raise ValueError("tasks = []: name at least one")
    return wanted
