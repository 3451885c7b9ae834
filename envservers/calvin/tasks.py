"""CALVIN's 34 tasks as data: from which state of the table each is possible, what it leads to.

Such a state is symbolic: where each block lies, slider, drawer, lights, whether a block is held.
The order of the tasks is that of CALVIN's `multistep_sequences.py`, as chains are drawn by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from envservers.options import suggestion
from vlarl.errors import UserError

CHAIN = "chain"
"""The name of the long-horizon task."""
CHAIN_LENGTH = 5
SUBTASK_STEPS = 360
"""Control steps for each instruction, in the published protocol."""

State = Mapping[str, Any]
Rule = tuple[State, State]
"""What must hold (a tuple: one of these), and what holds then."""

_COLORS = ("red", "blue", "pink")
_IN_SLIDER = ("slider_right", "slider_left")
_FREE = {"grasped": 0}


def _blocks(color: str) -> str:
    return f"{color}_block"


def _rules() -> Iterator[tuple[str, int, list[Rule]]]:
    """Task, category, rules. A chain takes at most one task of a category."""
    for verb in ("rotate", "push"):
        for color in _COLORS:
            on_table = {_blocks(color): "table"}
            for side in ("right", "left"):
                yield f"{verb}_{color}_block_{side}", 1, [({**on_table, **_FREE}, on_table)]
    for side, other in (("left", "right"), ("right", "left")):
        yield f"move_slider_{side}", 2, [({"slider": other, **_FREE}, {"slider": side})]
    yield "open_drawer", 3, [({"drawer": "closed", **_FREE}, {"drawer": "open"})]
    yield "close_drawer", 3, [({"drawer": "open", **_FREE}, {"drawer": "closed"})]
    for color in _COLORS:
        yield from _lifts(color)
    yield (
        "place_in_slider",
        7,
        [
            (_held(color, slider=side), _put(color, f"slider_{side}"))
            for color in _COLORS
            for side in ("right", "left")
        ],
    )
    yield (
        "place_in_drawer",
        7,
        [(_held(color, drawer="open"), _put(color, "drawer")) for color in _COLORS],
    )
    pairs = [(top, low) for top in _COLORS for low in _COLORS if top != low]
    yield (
        "stack_block",
        10,
        [
            (
                _held(top, **{_blocks(low): "table"}),
                {**_put(top, "stacked_top"), _blocks(low): "stacked_bottom"},
            )
            for top, low in pairs
        ],
    )
    yield (
        "unstack_block",
        11,
        [
            (
                {_blocks(top): "stacked_top", _blocks(low): "stacked_bottom", **_FREE},
                {_blocks(top): "table", _blocks(low): "table"},
            )
            for top, low in pairs
        ],
    )
    for light in ("lightbulb", "led"):
        for word, value in (("on", 1), ("off", 0)):
            yield f"turn_{word}_{light}", 8, [({light: 1 - value, **_FREE}, {light: value})]
    yield (
        "push_into_drawer",
        9,
        [
            (
                {
                    **{_blocks(other): _IN_SLIDER for other in _COLORS if other != color},
                    **{_blocks(color): "table", "drawer": "open"},
                    **_FREE,
                },
                _put(color, "drawer"),
            )
            for color in _COLORS
        ],
    )


def _lifts(color: str) -> Iterator[tuple[str, int, list[Rule]]]:
    block, effect = _blocks(color), {_blocks(color): "grasped", "grasped": 1}
    yield f"lift_{color}_block_table", 4, [({block: "table", **_FREE}, effect)]
    # The door of the cabinet covers one half of it.
    yield (
        f"lift_{color}_block_slider",
        5,
        [
            ({block: f"slider_{side}", "slider": door, **_FREE}, effect)
            for side, door in (("left", "right"), ("right", "left"))
        ],
    )
    yield f"lift_{color}_block_drawer", 6, [({block: "drawer", "drawer": "open", **_FREE}, effect)]


def _held(color: str, **more: str) -> State:
    return {_blocks(color): "grasped", "grasped": 1, **more}


def _put(color: str, place: str) -> dict[str, Any]:
    return {_blocks(color): place, "grasped": 0}


RULES = {name: rules for name, _, rules in _rules()}
"""Task -> its rules."""
CATEGORY = {name: category for name, category, _ in _rules()}


def outcomes(state: State, task: str) -> list[State]:
    """The states that `task` can lead to from `state`; none where it is impossible."""
    return [
        {**state, **effect}
        for condition, effect in RULES[task]
        if all(
            state[k] in v if isinstance(v, tuple) else state[k] == v for k, v in condition.items()
        )
    ]


def is_chain(state: State, tasks: Sequence[str]) -> bool:
    """Whether these tasks can be done in this order, each in one way, no two of a category."""
    if len({CATEGORY[task] for task in tasks}) < len(tasks):
        return False
    for task in tasks:
        found = outcomes(state, task)
        if len(found) != 1:
            return False
        state = found[0]
    return True


def initial_states() -> list[State]:
    """Those that episodes begin in: one or two blocks on the table, the others in the cabinet."""
    places = ("table", *_IN_SLIDER)
    values: dict[str, tuple[Any, ...]] = {
        "led": (0, 1),
        "lightbulb": (0, 1),
        "slider": ("right", "left"),
        "drawer": ("closed", "open"),
        **{_blocks(color): places for color in _COLORS},
        "grasped": (0,),
    }
    states = [dict(zip(values, found, strict=True)) for found in product(*values.values())]
    return [state for state in states if _is_possible([state[_blocks(c)] for c in _COLORS])]


def _is_possible(places: list[str]) -> bool:
    return places.count("table") in (1, 2) and all(places.count(half) < 2 for half in _IN_SLIDER)


SINGLE = tuple(task for task in RULES if any(outcomes(state, task) for state in initial_states()))
"""Tasks that are possible at an episode's beginning."""


def find_tasks(names: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks of these names; None: the chain.

    Raises:
        UserError: for another name, one twice, or none.
    """
    chosen = (CHAIN,) if names is None else tuple(names)
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"tasks = {list(chosen)}: at least one, each once")
    for name in chosen:
        if name not in (CHAIN, *SINGLE):
            later = " It needs another task before it: it is part of chains only."
            raise UserError(
                f"unknown task {name!r}; tasks are {CHAIN!r} and the "
                f"{len(SINGLE)} of docs/suites/calvin.md."
                f"{later if name in RULES else suggestion(name, (CHAIN, *SINGLE))}"
            )
    return chosen
