"""RoboTwin's tasks as data: names, step limits, and the published evaluation.

Names are those of the benchmark's modules; limits are those of its `_eval_step_limit.yml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envservers.options import suggestion
from envservers.task_groups import Protocol, TaskGroups, expand

LIMITS = {
    "adjust_bottle": 400,
    "beat_block_hammer": 400,
    "blocks_ranking_rgb": 1200,
    "blocks_ranking_size": 1200,
    "click_alarmclock": 400,
    "click_bell": 400,
    "dump_bin_bigbin": 600,
    "grab_roller": 400,
    "handover_block": 800,
    "handover_mic": 600,
    "hanging_mug": 900,
    "lift_pot": 400,
    "move_can_pot": 400,
    "move_pillbottle_pad": 400,
    "move_playingcard_away": 400,
    "move_stapler_pad": 400,
    "open_laptop": 700,
    "open_microwave": 1500,
    "pick_diverse_bottles": 400,
    "pick_dual_bottles": 400,
    "place_a2b_left": 400,
    "place_a2b_right": 400,
    "place_bread_basket": 700,
    "place_bread_skillet": 500,
    "place_burger_fries": 500,
    "place_can_basket": 700,
    "place_cans_plasticbox": 800,
    "place_container_plate": 400,
    "place_dual_shoes": 600,
    "place_empty_cup": 500,
    "place_fan": 400,
    "place_mouse_pad": 400,
    "place_object_basket": 700,
    "place_object_scale": 400,
    "place_object_stand": 400,
    "place_phone_stand": 400,
    "place_shoe": 500,
    "press_stapler": 400,
    "put_bottles_dustbin": 1700,
    "put_object_cabinet": 700,
    "rotate_qrcode": 400,
    "scan_object": 500,
    "shake_bottle": 700,
    "shake_bottle_horizontally": 700,
    "stack_blocks_three": 1200,
    "stack_blocks_two": 800,
    "stack_bowls_three": 1200,
    "stack_bowls_two": 900,
    "stamp_seal": 400,
    "turn_switch": 400,
}
"""Task -> control steps of an episode, as the benchmark evaluates it."""

TASKS = tuple(LIMITS)

GROUPS = TaskGroups(
    groups={"robotwin-50": TASKS},
    protocols={"robotwin-50": Protocol(("robotwin-50",), 100)},
)


def find_tasks(
    suite: str, names: Sequence[str] | None, known: Sequence[str], groups: Mapping[str, object]
) -> tuple[str, ...]:
    """The tasks that `names` of tasks and groups stand for, each once, in order; None: all.

    Args:
        suite: whose.
        names: of its tasks or groups.
        known: its tasks.
        groups: its groups.

    Raises:
        ValueError: for another name, or for none.
    """
    wanted = expand(suite, known if names is None else names)
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"unknown task {name!r}; choose of the {len(known)} tasks ({known[0]} to "
                f"{known[-1]}: docs/suites/{suite}.md) or of {', '.join(groups)}."
                f"{suggestion(name, [*known, *groups])}"
            )
    if not wanted:
        raise ValueError("tasks = []: name at least one")
    return wanted
