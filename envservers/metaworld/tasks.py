"""MetaWorld's tasks as data: names, instructions, benchmarks and difficulty. No simulator needed.

Names are those of `metaworld` 3. Benchmarks are its own (Yu et al. 2019, arXiv:1910.10897, in the
revision of Meta-World+, arXiv:2505.11289). Difficulty is the grouping of Seo et al. 2022 ("Masked
World Models for Visual Control", arXiv:2206.14244, appendix), which the tables of
vision-language-action models follow (such as LeRobot's `envs/metaworld_config.json`).
"""

from __future__ import annotations

from collections.abc import Sequence

from envservers.options import suggestion

INSTRUCTIONS = {
    "assembly-v3": "lift the ring by its handle and slip it over the peg",
    "basketball-v3": "carry the ball to the hoop and drop it through",
    "bin-picking-v3": "take the cube out of the near bin and set it down in the other bin",
    "box-close-v3": "lift the lid and put it on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "reach over the wall and press the button from above",
    "button-press-v3": "push the button on the front of the box",
    "button-press-wall-v3": "go around the wall and push the button behind it",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine to the marked spot",
    "coffee-push-v3": "push the mug under the spout of the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "lift the ring off the peg",
    "door-close-v3": "push the open door shut",
    "door-lock-v3": "turn the lock of the door down to lock it",
    "door-open-v3": "pull the door open by its handle",
    "door-unlock-v3": "turn the lock of the door to unlock it",
    "drawer-close-v3": "push the drawer shut",
    "drawer-open-v3": "pull the drawer open",
    "faucet-close-v3": "turn the tap handle to shut the water off",
    "faucet-open-v3": "turn the tap handle to let the water run",
    "hammer-v3": "pick up the hammer and drive the nail into the wall",
    "hand-insert-v3": "lower the hand into the hole in the table",
    "handle-press-side-v3": "press the handle down from its side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from its side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "swing the lever up",
    "peg-insert-side-v3": "pick up the peg and push it into the hole in the side of the box",
    "peg-unplug-side-v3": "pull the plug out sideways",
    "pick-out-of-hole-v3": "take the puck out of the hole and hold it at the marked point",
    "pick-place-v3": "pick up the puck and hold it at the marked point",
    "pick-place-wall-v3": "pick up the puck and bring it over the wall to the marked point",
    "plate-slide-back-side-v3": "slide the plate out of the goal to the side",
    "plate-slide-back-v3": "slide the plate back out of the goal",
    "plate-slide-side-v3": "slide the plate sideways into the goal",
    "plate-slide-v3": "slide the plate forward into the goal",
    "push-back-v3": "pull the block back to the marked spot",
    "push-v3": "push the puck to the marked spot",
    "push-wall-v3": "push the block around the wall to the marked spot",
    "reach-v3": "move the hand to the marked point",
    "reach-wall-v3": "move the hand over the wall to the marked point",
    "shelf-place-v3": "pick up the block and put it on the shelf",
    "soccer-v3": "push the ball into the goal",
    "stick-pull-v3": "take the stick, hook it into the handle of the thermos and pull it close",
    "stick-push-v3": "take the stick and push the thermos with it to the marked spot",
    "sweep-into-v3": "sweep the block into the hole in the table",
    "sweep-v3": "sweep the block along the table to the marked spot",
    "window-close-v3": "slide the window shut",
    "window-open-v3": "slide the window open",
}
"""Task -> what the policy is told, our own words."""

TASKS = tuple(INSTRUCTIONS)

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


def find_tasks(names: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks that `names` of tasks, benchmarks and difficulties stand for, each once, in order.

    Raises:
        ValueError: for another name, or for none.
    """
    groups = {**SPLITS, **DIFFICULTY}
    found: dict[str, None] = {}
    for name in TASKS if names is None else names:
        if name not in INSTRUCTIONS and name not in groups:
            near = suggestion(name, [*TASKS, *groups])
            raise ValueError(
                f"unknown task {name!r}; choose of the 50 tasks ({TASKS[0]} to {TASKS[-1]}: "
                f"docs/suites/metaworld.md) or of {', '.join(groups)}.{near}"
            )
        found.update(dict.fromkeys(groups.get(name, (name,))))
    if not found:
        raise ValueError("tasks = []: name at least one")
    return tuple(found)
