"""RoboCasa-GR1's tasks as data: names, groups, and the published evaluation.

Names are those of the environments registered as `gr1_unified/<name>_<robot>_Env`, in the order of
the benchmark's own list. Six put an object away and close what it is in; eighteen move an object
that was not in the benchmark's training data from one thing to another.
"""

from __future__ import annotations

from collections.abc import Sequence

from envservers.options import suggestion
from envservers.task_groups import Protocol, TaskGroups, expand

ROBOT = "GR1ArmsAndWaistFourierHands"
MAX_STEPS = 720
"""Control steps of an episode, as published evaluations have it."""

_PUT_AWAY = (
    "PnPCupToDrawerClose", "PnPPotatoToMicrowaveClose", "PnPMilkToMicrowaveClose",
    "PnPBottleToCabinetClose", "PnPWineToCabinetClose", "PnPCanToDrawerClose",
)  # fmt: skip
_WAYS = (
    "CuttingboardToBasket", "CuttingboardToCardboardbox", "CuttingboardToPan",
    "CuttingboardToPot", "CuttingboardToTieredbasket", "PlacematToBasket", "PlacematToBowl",
    "PlacematToPlate", "PlacematToTieredshelf", "PlateToBowl", "PlateToCardboardbox",
    "PlateToPan", "PlateToPlate", "TrayToCardboardbox", "TrayToPlate", "TrayToPot",
    "TrayToTieredbasket", "TrayToTieredshelf",
)  # fmt: skip
_MOVE = tuple(f"PosttrainPnPNovelFrom{way}SplitA" for way in _WAYS)

TASKS = (*_PUT_AWAY, *_MOVE)

GROUPS = TaskGroups(
    groups={"put-away": _PUT_AWAY, "move": _MOVE, "tabletop-24": TASKS},
    reported=("put-away", "move"),
    protocols={"tabletop-24": Protocol(("tabletop-24",), 50)},
)


def find_tasks(names: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks that `names` of tasks and groups stand for, each once, in order; None: all.

    Raises:
        ValueError: for another name, or for none.
    """
    wanted = expand("robocasa-gr1", TASKS if names is None else names)
    for name in wanted:
        if name not in TASKS:
            raise ValueError(
                f"unknown task {name!r}; choose of the 24 tasks ({TASKS[0]} to {TASKS[-1]}: "
                f"docs/suites/robocasa-gr1.md) or of {', '.join(GROUPS.groups)}."
                f"{suggestion(name, [*TASKS, *GROUPS.groups])}"
            )
    if not wanted:
        raise ValueError("tasks = []: name at least one")
    return wanted
