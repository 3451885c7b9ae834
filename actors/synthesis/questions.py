"""Questions about a table whose answers the simulator knows (paper section 3.2.5).

Captions, boxes, points, relations, counting, colors, shapes and two views, each a function of what
is seen. Only what is clearly visible is asked for, and nothing whose answer is in doubt: such a
function returns None. Directions are those of the fixed camera's picture, and the question says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from actors.synthesis.seen import APART, Seen
from envservers.tabletop.facts import (
    ASIDE,
    DIRECTIONS,
    OPPOSITE,
    distance,
    region,
    rests_on,
)
from envservers.tabletop.layouts import BLOCKS, SHAPE, sample_layout
from envservers.tabletop.renderer import CAMERAS
from envservers.tabletop.scene import OBJECTS
from vlarl.data.boxes import format_places

_NEARER = 0.02
"""Meters by which the nearest object must beat the second nearest."""
EGO, WRIST = CAMERAS


@dataclass(frozen=True)
class Question:
    """One question with its answer."""

    kind: str
    text: str
    answer: str
    views: tuple[str, ...] = (EGO,)


def caption(seen: Seen, random: np.random.Generator) -> Question | None:
    """All that is on the table, and how it lies."""
    things = seen.visible()
    if not things or _unclear(seen):
        return None
    listed = joined([with_article(seen.name(thing)) for thing in things])
    sentences = [f"A robot arm stands at the far side of a table with {listed}."]
    for thing in things:
        below = _bearer(seen, thing)
        if below in things:
            word = "in" if below == "basket" else "on"
            sentences.append(f"The {seen.name(thing)} lies {word} the {seen.name(below)}.")
        else:
            sentences.append(f"The {seen.name(thing)} is at the {region(seen.facts, thing)}.")
    asked = ("Describe the picture.", "What does the picture show?", "Describe the table.")
    return Question("caption", str(random.choice(asked)), " ".join(sentences))


def one_box(seen: Seen, random: np.random.Generator) -> Question | None:
    """Where one object is."""
    things = seen.visible()
    if not things:
        return None
    thing = str(random.choice(things))
    text = f"Give the bounding box of the {seen.name(thing)} as JSON."
    return Question("box", text, format_places([seen.box(thing)]))


def all_boxes(seen: Seen, random: np.random.Generator) -> Question | None:
    """Where everything is, from left to right."""
    if not seen.visible() or _unclear(seen):
        return None
    places = sorted((seen.box(thing) for thing in seen.visible()), key=lambda p: p.coordinates)
    text = "Give the bounding boxes of all objects on the table as JSON, from left to right."
    return Question("boxes", text, format_places(places))


def point(seen: Seen, random: np.random.Generator) -> Question | None:
    """A point on one object."""
    things = seen.visible()
    if not things:
        return None
    thing = str(random.choice(things))
    text = f"Point to the {seen.name(thing)}. Answer as JSON."
    return Question("point", text, format_places([seen.point(thing)]))


def relation(seen: Seen, random: np.random.Generator, wanted: bool) -> Question | None:
    """Whether one object is in some direction from another; the answer is `wanted`."""
    things = seen.visible()
    found = [
        (a, direction, b)
        for a in things
        for b in things
        for direction in DIRECTIONS
        if a != b and seen.is_seen(a, direction, b)
    ]
    if not found:
        return None
    a, direction, b = found[random.integers(len(found))]
    said = direction if wanted else OPPOSITE[direction]
    text = f"Seen from the camera, is the {seen.name(a)} {said} the {seen.name(b)}?"
    return Question("relation", text, "yes" if wanted else "no")


def on_top(seen: Seen, random: np.random.Generator, wanted: bool) -> Question | None:
    """Whether one object lies on or in another; the answer is `wanted`."""
    things = seen.visible()
    bearers = [name for name in things if name in ("towel", "plate", "basket", *BLOCKS)]
    found = [
        (a, b)
        for a in things
        for b in bearers
        if a != b and a not in ("towel", "plate", "basket") and (_bearer(seen, a) == b) == wanted
    ]
    if not found:
        return None
    a, b = found[random.integers(len(found))]
    word = "in" if b == "basket" else "on top of"
    text = f"Is the {seen.name(a)} {word} the {seen.name(b)}?"
    return Question("on_top", text, "yes" if wanted else "no")


def exists(seen: Seen, random: np.random.Generator, wanted: bool) -> Question | None:
    """Whether there is such an object; the answer is `wanted`."""
    things = seen.visible()
    if not things or _unclear(seen):
        return None
    if wanted:
        name = seen.name(str(random.choice(things)))
    else:
        # From another table, so that the words alone tell as little as they can.
        other = sample_layout(random)
        names = [_plain(other.name(thing)) for thing in other.present]
        names = [n for n in names if n not in {_plain(seen.name(thing)) for thing in things}]
        if not names:
            return None
        name = str(random.choice(names))
    text = f"Is there {with_article(name)} on the table?"
    return Question("exists", text, "yes" if wanted else "no")


def direction_list(seen: Seen, random: np.random.Generator) -> Question | None:
    """Everything that is in some direction from an object, if nothing is in doubt."""
    things = seen.visible()
    if len(things) < 2 or _unclear(seen):
        return None
    of, direction = str(random.choice(things)), str(random.choice(list(DIRECTIONS)))
    others = [thing for thing in things if thing != of]
    sure = [thing for thing in others if seen.is_seen(thing, direction, of)]
    against = [thing for thing in others if seen.is_seen(thing, OPPOSITE[direction], of)]
    axis = 0 if direction.startswith("to the") else 1
    for thing in {*others} - {*sure, *against}:
        on_table, in_picture = seen.facts.offset(thing, of)[axis], seen.offset(thing, of)[axis]
        if abs(on_table) > ASIDE / 3 or abs(in_picture) > APART:
            return None
    names = joined([f"the {seen.name(thing)}" for thing in sure])
    text = f"Seen from the camera, what is {direction} the {seen.name(of)}?"
    return Question("direction", text, names or "nothing")


def nearest(seen: Seen, random: np.random.Generator) -> Question | None:
    """Which object is nearest to another."""
    things = seen.visible()
    if len(things) < 3 or _unclear(seen):
        return None
    of = str(random.choice(things))
    gaps = sorted((distance(seen.facts, thing, of), thing) for thing in things if thing != of)
    if gaps[1][0] - gaps[0][0] < _NEARER:
        return None
    text = f"Which object on the table is nearest to the {seen.name(of)}?"
    return Question("nearest", text, f"the {seen.name(gaps[0][1])}")


def count(seen: Seen, random: np.random.Generator) -> Question | None:
    """How many objects, blocks, or things of one color there are."""
    things = seen.visible()
    if not things or _unclear(seen):
        return None
    colors = [seen.facts.layout.colors[thing] for thing in things]
    color = str(random.choice(colors))
    asked = {
        "objects": len(things),
        "blocks": sum(thing in BLOCKS for thing in things),
        f"{color} objects": colors.count(color),
    }
    name = str(random.choice(list(asked)))
    return Question("count", f"How many {name} are on the table?", str(asked[name]))


def color_of(seen: Seen, random: np.random.Generator) -> Question | None:
    """Of what color an object is; a block only if there is one alone."""
    things = [t for t in seen.visible() if t not in BLOCKS or _blocks_present(seen) == 1]
    if not things:
        return None
    thing = str(random.choice(things))
    name = "block" if thing in BLOCKS else thing
    return Question("color", f"What color is the {name}?", seen.facts.layout.colors[thing])


def shape_of(seen: Seen, random: np.random.Generator) -> Question | None:
    """What shape an object of some color has, if no other has that color."""
    colors = seen.facts.layout.colors
    things = [t for t in seen.visible() if list(colors.values()).count(colors[t]) == 1]
    if not things:
        return None
    thing = str(random.choice(things))
    return Question("shape", f"What shape is the {colors[thing]} object?", SHAPE[thing])


def which_view(seen: Seen, random: np.random.Generator) -> Question | None:
    """Which of two views show an object."""
    clear, hidden = ({c: method(c) for c in CAMERAS} for method in (seen.visible, seen.hidden))
    answers = {
        "both": [t for t in clear[EGO] if t in clear[WRIST]],
        "the fixed camera only": [t for t in clear[EGO] if t in hidden[WRIST]],
        "the wrist camera only": [t for t in clear[WRIST] if t in hidden[EGO]],
    }
    possible = [answer for answer, things in answers.items() if things]
    if not possible:
        return None
    answer = str(random.choice(possible))
    thing = str(random.choice(answers[answer]))
    text = (
        "The first image is from the fixed camera, the second from the wrist camera. "
        f"Which of them show the {seen.name(thing)}?"
    )
    return Question("which_view", text, answer, CAMERAS)


def box_in_view(seen: Seen, random: np.random.Generator) -> Question | None:
    """Where an object is in the wrist camera's image, found by what the fixed camera shows."""
    things = [thing for thing in seen.visible(EGO) if thing in seen.visible(WRIST)]
    if not things:
        return None
    thing = str(random.choice(things))
    text = f"Give the bounding box of the {seen.name(thing)} in the wrist camera's image as JSON."
    return Question("box_in_view", text, format_places([seen.box(thing, WRIST)]), CAMERAS)


OPEN: tuple[Callable[[Seen, np.random.Generator], Question | None], ...] = (
    caption, one_box, all_boxes, point, direction_list, nearest, count, color_of, shape_of,
    which_view, box_in_view,
)  # fmt: skip
YES_NO: tuple[Callable[[Seen, np.random.Generator, bool], Question | None], ...] = (
    relation, on_top, exists,
)  # fmt: skip


def joined(words: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def with_article(name: str) -> str:
    """`a red block`, `an eggplant`."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _unclear(seen: Seen) -> bool:
    """Whether some present object is not clearly visible, so that lists and counts are in doubt."""
    return len(seen.visible()) < len(seen.facts.layout.present)


def _bearer(seen: Seen, thing: str) -> str:
    """The object that bears this one, or nothing."""
    return next((o for o in OBJECTS if o in seen.masks[EGO] and rests_on(seen.facts, thing, o)), "")


def _plain(name: str) -> str:
    """A name without the size."""
    return name.removeprefix("small ").removeprefix("large ")


def _blocks_present(seen: Seen) -> int:
    return sum(block in seen.facts.layout.present for block in BLOCKS)
