"""Reads an instruction and says where the motion contradicts it.

Knows the phrases of the vocabulary, not how sentences are composed from them: the audit reads the
stored text, and holds it against what the records show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from vlarl.synthesis.arm import Arm, Floats
from vlarl.synthesis.instruction import FAST, HIGH, LOW, SLOW
from vlarl.synthesis.observation import Observation
from vlarl.synthesis.scene import CENTER, FAR, NEAR, SIDE
from vlarl.synthesis.vocabulary import COMPASS, DIRECTIONS, Vocabulary, heading

DISTANCE_TOLERANCE, ANGLE_TOLERANCE = 0.01, float(np.deg2rad(4))
"""Meters and radians by which a motion may differ from what is said."""
RELATION_TOLERANCE = float(np.deg2rad(20))
_ORDER = ("facings", "regions", "relations", "places", "directions", "turns", "paces", "lifts")
"""Lists in which phrases are looked for, those that contain others' phrases first."""


@dataclass(frozen=True)
class Surroundings:
    """What the audit knows of the scene besides the records."""

    target: Floats
    """[3] where the target stood."""
    target_yaw: float
    """Where its front pointed."""
    other: Floats
    """[3] where the other thing stood; NaN if there is none."""
    other_radius: float


def read(text: str, words: Vocabulary) -> dict[str, str]:
    """What is claimed: the list's name -> its key, and `cm` and `degrees` as digits."""
    found = {}
    for kind in _ORDER:
        phrases = [
            (phrase, key) for key, choices in words.words[kind].items() for phrase in choices
        ]
        for phrase, key in sorted(phrases, key=lambda pair: -len(pair[0])):
            pattern = rf"\b{re.escape(phrase)}\b"
            if re.search(pattern, text):
                found[kind] = str(key)
                text = re.sub(pattern, "#", text, count=1)
                break
    for kind, pattern in (("cm", r"(\d+) (?:cm|centimeters)\b"), ("degrees", r"(\d+) degrees\b")):
        match = re.search(pattern, text)
        if match:
            found[kind] = match.group(1)
    return found


def contradictions(
    arm: Arm, claims: dict[str, str], seen: Observation, around: Surroundings
) -> list[str]:
    """What is claimed but not seen, in words; empty if all of it is true."""
    if not len(seen.taken):
        return ["nothing is taken and released"]
    way = (seen.released[0] - seen.taken[0])[:2]
    checks = {
        "directions": lambda key: _along(way, heading(DIRECTIONS.index(key), around.target)),
        "cm": lambda key: abs(seen.moved - int(key) / 100) <= DISTANCE_TOLERANCE,
        "turns": lambda key: (seen.turned[0] > 0) == (key == "counterclockwise"),
        "degrees": lambda key: _near(abs(seen.turned[0]), np.deg2rad(int(key))),
        "facings": lambda key: _near(
            around.target_yaw + seen.turned[0], heading(DIRECTIONS.index(key), around.target)
        ),
        "relations": lambda key: _related(key, seen.released[0], around),
        "regions": lambda key: _in_region(arm, key, seen.released[0]),
        "places": lambda key: (around.target[1] if key == "left" else -around.target[1]) > SIDE,
        "paces": lambda key: seen.top_speed < SLOW if key == "slow" else seen.top_speed > FAST,
        "lifts": lambda key: seen.top_height < LOW if key == "low" else seen.top_height > HIGH,
    }
    return [f"{kind} {key}" for kind, key in claims.items() if not checks[kind](key)]


def _along(way: Floats, angle: float) -> bool:
    return _near(float(np.arctan2(way[1], way[0])), angle)


def _near(a: float, b: float, tolerance: float = ANGLE_TOLERANCE) -> bool:
    return bool(abs((a - b + np.pi) % (2 * np.pi) - np.pi) <= tolerance)


def _related(relation: str, place: Floats, around: Surroundings) -> bool:
    offset = (place - around.other)[:2]
    if relation in ("inside", "on"):
        return bool(np.linalg.norm(offset) < around.other_radius)
    if np.linalg.norm(offset) < around.other_radius:
        return False
    angle = COMPASS.index(relation) * np.pi / 4
    return _near(float(np.arctan2(offset[1], offset[0])), angle, RELATION_TOLERANCE)


def _in_region(arm: Arm, region: str, place: Floats) -> bool:
    low, high = arm.reach_radius
    share = (np.linalg.norm(place[:2]) - low) / (high - low)
    return bool(
        {
            "left": place[1] > SIDE - DISTANCE_TOLERANCE,
            "right": place[1] < -SIDE + DISTANCE_TOLERANCE,
            "near": share < NEAR + 0.03,
            "far": share > FAR - 0.03,
            "middle": abs(place[1]) < CENTER + DISTANCE_TOLERANCE,
        }[region]
    )
