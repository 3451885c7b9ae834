"""Sentences for trajectories, composed from the vocabulary; what they say is true of the motion.

Directions, distances, turns and relations come from the scene's goal; words of manner ("slowly",
"lifting it high") are only used where the finished trajectory shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.scene import GOALS, OBSTACLE, OTHER, SIDE, TARGET, Scene, region_of
from vlarl.synthesis.vocabulary import DIRECTIONS, RELATIONS, Vocabulary

SLOW, FAST = 0.45, 0.9
"""The tool's top speed below and above which a motion may be called slow or fast (m/s)."""
LOW, HIGH = 0.2, 0.42
"""The tool's top height below and above which a thing may be said to be carried low or high (m)."""
DRAWS = 48
"""Random numbers that one sentence takes."""


@dataclass(frozen=True)
class Manner:
    """How `N` trajectories turned out."""

    top_speed: Floats
    """[N] of the tool, m/s."""
    top_height: Floats
    """[N] of the tool while it holds something; NaN where it never lifts anything."""


class _Draws:
    """Random numbers of one sentence, used up one by one."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers = numbers

    def number(self) -> float:
        """From 0 to 1."""
        return self._numbers.pop()

    def pick(self, choices: list[str]) -> str:
        """One of them."""
        return choices[int(self._numbers.pop() * len(choices))]


def compose(
    arm: Arm, template: str, scene: Scene, manner: Manner, words: Vocabulary, draws: Floats
) -> list[str]:
    """One sentence for each of `N` trajectories.

    Args:
        arm: whose reach decides what is near or far.
        template: one of `TEMPLATES`.
        scene: `N` scenes.
        manner: of the finished trajectories.
        words: the vocabulary.
        draws: [N, DRAWS] from 0 to 1.
    """
    regions = list(words.words["regions"])
    region = region_of(arm, scene.final_position[:, TARGET])
    return [
        _sentence(
            template, scene, row, words, regions[region[row]], manner, _Draws(draws[row].tolist())
        )
        for row in range(len(scene))
    ]


def _sentence(
    template: str,
    scene: Scene,
    row: int,
    words: Vocabulary,
    region: str,
    manner: Manner,
    draws: _Draws,
) -> str:
    lists = words.words
    goal = GOALS[scene.goal[row]]
    shift = int(draws.number() * len(lists["colors"]))
    direction = DIRECTIONS[scene.direction[row]]
    slots = {verb: draws.pick(choices) for verb, choices in lists["verbs"].items()}
    slots["object"] = _thing(scene, row, TARGET, words, shift, draws)
    slots["distance"] = draws.pick(lists["distances"]).format(cm=round(100 * scene.distance[row]))
    slots["direction"] = draws.pick(lists["directions"][direction])
    slots["facing"] = draws.pick(lists["facings"][direction])
    slots["region"] = draws.pick(lists["regions"][region])
    slots["turning"] = draws.pick(
        lists["turns"]["counterclockwise" if scene.turn[row] > 0 else "clockwise"]
    )
    degrees = round(abs(float(np.rad2deg(scene.turn[row]))))
    slots["angle"] = draws.pick(lists["angles"]).format(deg=degrees)
    slots["front"] = words.categories[scene.category[row, TARGET]].front
    if scene.category[row, OTHER] >= 0:
        slots["other"] = _thing(scene, row, OTHER, words, shift + 5, draws)
    if scene.relation[row] >= 0:
        slots["relation"] = draws.pick(lists["relations"][RELATIONS[scene.relation[row]]])
    text = draws.pick(lists["sentences"][template][goal]).format_map(slots)
    text += _manner(scene, row, words, shift, manner, draws)
    return f"{draws.pick(lists['polite'])} {text}".strip()


def _thing(scene: Scene, row: int, slot: int, words: Vocabulary, shift: int, draws: _Draws) -> str:
    """The thing with its article, and adjectives that are true of its size."""
    lists = words.words
    category = words.categories[scene.category[row, slot]]
    parts = ["the"]
    if draws.number() < 0.4:
        width, height = 2 * scene.radius[row, slot], scene.height[row, slot]
        by_width = draws.number() < 0.6
        size = _third(width, category.width) if by_width else _third(height, category.height)
        if size:
            parts.append(draws.pick(lists["sizes" if by_width else "heights"][size]))
    # Two things of a scene get different colors; the color is left out only of single things.
    if draws.number() < 0.8 or scene.category[row, OTHER] >= 0:
        parts.append(lists["colors"][(shift + slot) % len(lists["colors"])])
    parts += [draws.pick(lists["materials"]), category.name]
    side = "left" if scene.position[row, slot, 1] > SIDE else "right"
    if slot == TARGET and abs(scene.position[row, slot, 1]) > SIDE and draws.number() < 0.25:
        parts.append(draws.pick(lists["places"][side]))
    return " ".join(part for part in parts if part)


def _third(size: float, limits: tuple[float, float]) -> str:
    """`small` or `large` for the outer thirds of the range."""
    share = (size - limits[0]) / (limits[1] - limits[0])
    return "small" if share < 1 / 3 else "large" if share > 2 / 3 else ""


def _manner(
    scene: Scene, row: int, words: Vocabulary, shift: int, manner: Manner, draws: _Draws
) -> str:
    """What is said of the way it is done; often nothing."""
    lists = words.words
    said = []
    speed, height = manner.top_speed[row], manner.top_height[row]
    if (speed < SLOW or speed > FAST) and draws.number() < 0.7:
        said.append(draws.pick(lists["paces"]["slow" if speed < SLOW else "fast"]))
    if (height < LOW or height > HIGH) and draws.number() < 0.5:
        said.append(draws.pick(lists["lifts"]["low" if height < LOW else "high"]))
    if scene.category[row, OBSTACLE] >= 0 and draws.number() < 0.6:
        obstacle = _thing(scene, row, OBSTACLE, words, shift + 7, draws)
        said.append("and " * (not said) + draws.pick(lists["avoids"]).format(obstacle=obstacle))
    return "".join(f", {text}" for text in said)
