"""What a task's BDDL file says: its sentence, what is in the scene, and the goal.

BDDL is Lisp's notation: lists in parentheses, `;` begins a comment. Only what an expert and the
adapter read is taken out; the simulator reads the file itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_UNARY = ("open", "close", "turnon", "turnoff")
_BINARY = ("on", "in")


@dataclass(frozen=True)
class Goal:
    """One condition. All of a task's hold at once, or it is not achieved."""

    predicate: str
    """One of on, in, open, close, turnon, turnoff."""
    subject: str
    """The object to move, or the fixture (or part of it) to change."""
    place: str = ""
    """Where the object goes: another object, or a region."""


@dataclass(frozen=True)
class Problem:
    """One BDDL file."""

    instruction: str
    goals: tuple[Goal, ...]
    objects: dict[str, str]
    """What can be moved: name -> kind."""
    fixtures: dict[str, str]
    """What cannot: name -> kind."""
    regions: dict[str, str]
    """Region, as goals name it (`<target>_<region>`) -> what it is part of."""


def parse(text: str) -> Problem:
    """Read a BDDL file's text.

    Raises:
        ValueError: if it is not one, or has a goal of a kind that LIBERO does not have.
    """
    whole = _tree(text)
    if not isinstance(whole, list) or not whole or whole[0] != "define":
        raise ValueError("not a BDDL problem: it does not begin with (define ...")
    parts = {part[0]: part[1:] for part in whole[1:] if isinstance(part, list) and part}
    if ":goal" not in parts:
        raise ValueError("the BDDL problem has no (:goal ...)")
    goals = [_goal(words) for words in _conjunction(parts[":goal"][0])]
    return Problem(
        instruction=" ".join(parts.get(":language", [])),
        goals=tuple(goals),
        objects=_typed(parts.get(":objects", [])),
        fixtures=_typed(parts.get(":fixtures", [])),
        regions=_regions(parts.get(":regions", [])),
    )


def _tree(text: str) -> Any:
    words = re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", text))
    stack: list[list[Any]] = [[]]
    for word in words:
        if word == "(":
            stack.append([])
        elif word == ")":
            if len(stack) < 2:
                raise ValueError("not a BDDL problem: a parenthesis too many is closed")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError("not a BDDL problem: its parentheses do not match")
    return stack[0][0]


def _conjunction(formula: list[Any]) -> list[list[str]]:
    if formula and str(formula[0]).lower() == "and":
        return [words for part in formula[1:] for words in _conjunction(part)]
    return [formula]


def _goal(words: list[str]) -> Goal:
    predicate = str(words[0]).lower()
    expected = 2 if predicate in _UNARY else 3
    if predicate not in _UNARY + _BINARY or len(words) != expected:
        raise ValueError(f"unknown goal ({' '.join(map(str, words))})")
    return Goal(predicate, *words[1:])


def _typed(words: list[str]) -> dict[str, str]:
    """`a b - kind c - other` as name -> kind."""
    kinds: dict[str, str] = {}
    waiting: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-":
            kinds.update(dict.fromkeys(waiting, next(rest)))
            waiting = []
        else:
            waiting.append(word)
    return kinds


def _regions(parts: list[list[Any]]) -> dict[str, str]:
    found = {}
    for name, *attributes in parts:
        target = dict(pair for pair in attributes if len(pair) == 2).get(":target")
        if target:
            found[f"{target}_{name}"] = target
    return found
