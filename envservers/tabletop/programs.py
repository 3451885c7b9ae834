"""Tasks made up for a table: an instruction, stages to work through, and a test of success.

The test is a list of named predicates with their arguments, so that it can be written down beside
the data and run again. Short tasks have one stage, long ones two to four. Each maker returns None
where the table does not lend itself to its task.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from envservers.tabletop.facts import (
    DIRECTIONS,
    Facts,
    at_spot,
    beside_in,
    in_line,
    left_of,
    let_go,
    on_table,
    rests_on,
)
from envservers.tabletop.layouts import BLOCKS
from envservers.tabletop.sampling import PLACE_HIGH, PLACE_LOW
from envservers.tabletop.scene import CLEARANCE, MOVABLE

PREDICATES: dict[str, Callable[..., bool]] = {
    "rests_on": rests_on,
    "on_table": on_table,
    "beside_in": beside_in,
    "at_spot": at_spot,
    "in_line": in_line,
    "left_of": left_of,
    "let_go": let_go,
}
_STEP = {
    "to the left of": (0, -1),
    "to the right of": (0, 1),
    "in front of": (1, 0),
    "behind": (-1, 0),
}
"""Direction -> where it points, x and y."""
_GAP = 0.008
_IN_BASKET = 0.022
"""Meters: between neighbors placed side by side; from the basket's center, of several things."""


@dataclass(frozen=True)
class Condition:
    """One predicate of `PREDICATES` with its arguments after the facts."""

    predicate: str
    arguments: tuple[Any, ...]

    def holds(self, facts: Facts) -> bool:
        """Whether it is true of a table."""
        return PREDICATES[self.predicate](facts, *self.arguments)


@dataclass(frozen=True)
class Stage:
    """One thing carried to one place."""

    carried: str
    where: str
    """The place in words: `on the blue plate`."""
    onto: str = ""
    """What it is put on or in; empty: the table."""
    spot: tuple[float, float] = (0.0, 0.0)
    """x, y on the table, or from the center of `onto`."""

    @property
    def goal(self) -> Condition:
        """What holds when the stage has succeeded and nothing is in the hand."""
        if self.onto:
            return Condition("rests_on", (self.carried, self.onto))
        return Condition("at_spot", (self.carried, self.spot))


@dataclass(frozen=True)
class Program:
    """A task for one table."""

    kind: str
    instruction: str
    stages: tuple[Stage, ...]
    success: tuple[Condition, ...]
    """All of them must hold in the end, with all that was carried let go of."""

    @property
    def horizon(self) -> str:
        """`short` (one stage) or `long`."""
        return "short" if len(self.stages) == 1 else "long"

    def succeeded(self, facts: Facts) -> bool:
        """Run the test."""
        return all(condition.holds(facts) for condition in self.success) and all(
            let_go(facts, stage.carried) for stage in self.stages
        )

    def to_json(self) -> str:
        """The test as text."""
        return json.dumps([[c.predicate, *c.arguments] for c in self.success])


def put_on(facts: Facts, random: np.random.Generator) -> Program | None:
    """Put one thing on, or in, another."""
    name = facts.layout.name
    pairs = [(a, b) for a in _movable(facts) for b in facts.positions if _may_rest(facts, a, b)]
    if not pairs:
        return None
    a, b = pairs[random.integers(len(pairs))]
    word = "in" if b == "basket" else "on"
    stage = Stage(a, f"{word} the {name(b)}", onto=b)
    verb = "stack" if b in BLOCKS else str(random.choice(["put", "place"]))
    success = (Condition("rests_on", (a, b)),)
    return Program("put_on", f"{verb} the {name(a)} {stage.where}", (stage,), success)


def put_beside(facts: Facts, random: np.random.Generator) -> Program | None:
    """Place one thing beside another, in one direction as the fixed camera sees it."""
    name, found = facts.layout.name, []
    for a in _movable(facts):
        for b in facts.positions:
            if b == a or not on_table(facts, b) or _bears_something(facts, b):
                continue
            reach = _radius(facts, a) + _radius(facts, b) + _GAP
            for direction in DIRECTIONS:
                x, y = facts.positions[b][:2] + reach * np.array(_STEP[direction])
                is_so = beside_in(facts, a, b, direction)
                if not is_so and _is_free(facts, (x, y), a, {a, b}):
                    found.append((a, b, direction, (float(x), float(y))))
    if not found:
        return None
    a, b, direction, spot = found[random.integers(len(found))]
    stage = Stage(a, f"{direction} the {name(b)}", spot=spot)
    verb = str(random.choice(["put", "place", "move"]))
    success = (Condition("beside_in", (a, b, direction)),)
    return Program("put_beside", f"{verb} the {name(a)} {stage.where}", (stage,), success)


def take_off(facts: Facts, random: np.random.Generator) -> Program | None:
    """Take one thing off, or out of, another."""
    name, stacked = facts.layout.name, facts.layout.stacked
    spot = _free_spot(facts, random)
    if not stacked or spot is None:
        return None
    a = str(random.choice(sorted(stacked)))
    word = "out of" if stacked[a] == "basket" else "off"
    stage = Stage(a, "on the table", spot=spot)
    instruction = f"take the {name(a)} {word} the {name(stacked[a])} and put it on the table"
    return Program("take_off", instruction, (stage,), (Condition("on_table", (a,)),))


def put_both(facts: Facts, random: np.random.Generator) -> Program | None:
    """Put two things on two others, one after the other."""
    first = put_on(facts, random)
    if first is None:
        return None
    taken = {first.stages[0].carried, first.stages[0].onto}
    for _ in range(8):
        second = put_on(facts, random)
        assert second is not None
        if not taken & {second.stages[0].carried, second.stages[0].onto}:
            instruction = f"{first.instruction}, then {second.instruction}"
            stages = (*first.stages, *second.stages)
            return Program("put_both", instruction, stages, (*first.success, *second.success))
    return None


def swap(facts: Facts, random: np.random.Generator) -> Program | None:
    """Exchange two things by way of a free spot."""
    name = facts.layout.name
    things = [thing for thing in _movable(facts) if on_table(facts, thing)]
    aside = _free_spot(facts, random)
    if len(things) < 2 or aside is None:
        return None
    a, b = random.choice(things, 2, replace=False).tolist()
    place = {thing: _xy(facts, thing) for thing in (a, b)}
    stages = (
        Stage(a, "aside", spot=aside),
        Stage(b, f"where the {name(a)} was", spot=place[a]),
        Stage(a, f"where the {name(b)} was", spot=place[b]),
    )
    success = (Condition("at_spot", (a, place[b])), Condition("at_spot", (b, place[a])))
    return Program("swap", f"swap the {name(a)} and the {name(b)}", stages, success)


def line_up(facts: Facts, random: np.random.Generator) -> Program | None:
    """Put two things beside a third, all in a row across the picture."""
    name = facts.layout.name
    things = [thing for thing in _movable(facts) if on_table(facts, thing)]
    rows = list(permutations(things, 3))
    for at in random.permutation(len(rows)):
        row = rows[at]
        anchor = row[1]
        x, y = _xy(facts, anchor)
        spots = {}
        for thing, sign in ((row[0], -1), (row[2], 1)):
            reach = _radius(facts, thing) + _radius(facts, anchor) + _GAP
            spots[thing] = (x, y + sign * reach)
        if not all(_is_free(facts, spot, thing, {*row}) for thing, spot in spots.items()):
            continue
        stages = tuple(
            Stage(thing, f"to the {side} of the {name(anchor)}", spot=spots[thing])
            for thing, side in ((row[0], "left"), (row[2], "right"))
        )
        success = (
            Condition("in_line", (row,)),
            Condition("left_of", (row[0], anchor)),
            Condition("left_of", (anchor, row[2])),
        )
        words = f"the {name(row[0])}, the {name(anchor)} and the {name(row[2])}"
        return Program("line_up", f"line up {words} from left to right", stages, success)
    return None


def gather(facts: Facts, random: np.random.Generator) -> Program | None:
    """Put all things of one color in the basket."""
    colors = facts.layout.colors
    if "basket" not in colors or _bears_something(facts, "basket"):
        return None
    found = []
    for color in sorted(set(colors.values()) - {colors["basket"]}):
        things = [thing for thing, its in colors.items() if its == color]
        if 2 <= len(things) <= 3 and all(thing in MOVABLE for thing in things):
            found.append((color, things))
    if not found:
        return None
    color, things = found[random.integers(len(found))]
    things = random.permutation(things).tolist()
    shifts = np.linspace(-_IN_BASKET, _IN_BASKET, len(things))
    basket = f"in the {facts.layout.name('basket')}"
    stages = tuple(
        Stage(thing, basket, onto="basket", spot=(float(shift), 0.0))
        for thing, shift in zip(things, shifts, strict=True)
    )
    success = tuple(Condition("rests_on", (thing, "basket")) for thing in things)
    return Program("gather", f"put all {color} objects {basket}", stages, success)


MAKERS: dict[str, tuple[Callable[[Facts, np.random.Generator], Program | None], ...]] = {
    "short": (put_on, put_beside, take_off),
    "long": (put_both, swap, line_up, gather),
}
"""Horizon -> who makes tasks of it."""


def make_program(facts: Facts, horizon: str, random: np.random.Generator) -> Program | None:
    """A task that this table allows and that is not achieved already.

    Args:
        facts: of the settled table.
        horizon: `short`, `long` or `both`.
        random: draws kind and objects.
    """
    makers = [maker for key, own in MAKERS.items() if horizon in (key, "both") for maker in own]
    for place in random.permutation(len(makers)):
        program = makers[place](facts, random)
        if program is not None and not program.succeeded(facts):
            return program
    return None


def _movable(facts: Facts) -> list[str]:
    """What can be taken: nothing that bears something."""
    return [t for t in facts.positions if t in MOVABLE and not _bears_something(facts, t)]


def _bears_something(facts: Facts, thing: str) -> bool:
    return any(rests_on(facts, other, thing) for other in facts.positions)


def _may_rest(facts: Facts, thing: str, other: str) -> bool:
    """Whether it may be put there: an empty towel, plate or basket, or on the larger block."""
    if other in MOVABLE and not ((thing, other) == BLOCKS and on_table(facts, other)):
        return False
    return other != thing and not _bears_something(facts, other)


def _radius(facts: Facts, thing: str) -> float:
    return CLEARANCE[thing] * max(1.0, facts.layout.scale[thing])


def _xy(facts: Facts, thing: str) -> tuple[float, float]:
    x, y = facts.positions[thing][:2]
    return float(x), float(y)


def _is_free(facts: Facts, spot: tuple[float, float], thing: str, but: set[str]) -> bool:
    """Whether there is room for a thing at a spot within reach, whatever becomes of `but`."""
    if not ((spot >= PLACE_LOW) & (spot <= PLACE_HIGH)).all():
        return False
    return all(
        np.linalg.norm(at[:2] - spot) > _radius(facts, thing) + _radius(facts, other)
        for other, at in facts.positions.items()
        if other not in but
    )


def _free_spot(facts: Facts, random: np.random.Generator) -> tuple[float, float] | None:
    """A spot with room for anything that can be carried, if one is found."""
    for x, y in random.uniform(PLACE_LOW, PLACE_HIGH, (64, 2)).tolist():
        if _is_free(facts, (x, y), "carrot", set()):
            return x, y
    return None
