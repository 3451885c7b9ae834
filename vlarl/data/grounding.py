"""Grounding samples: images with the places of named objects, worded as questions and answers.

Coordinates are spoken on a scale of 1000, three digits each, horizontal before vertical. Where
images and places come from (a simulator) is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALE = 1000


@dataclass(frozen=True)
class GroundingSet:
    """`M` scenes, all with the same objects.

    Raises:
        ValueError: if the arrays disagree, or a scene shows no object at all.
    """

    images: dict[str, NDArray[np.uint8]]
    """camera -> [M, height, width, 3]"""
    objects: tuple[str, ...]
    """Names as they are spoken: `green block`."""
    places: NDArray[np.float32]
    """[M, cameras, objects, 2] horizontal and vertical place in each camera's image, in the order
    of `images`, as fractions from its left and top edge; outside [0, 1) or NaN where out of view.
    Questions are asked about the first camera."""
    offsets: NDArray[np.float32] | None = None
    """[M, objects, 3] meters from the hand to each object, in the frame of its motions."""

    def __post_init__(self) -> None:
        scenes = len(next(iter(self.images.values())))
        expected = (scenes, len(self.images), len(self.objects), 2)
        if self.places.shape != expected:
            raise ValueError(f"places are {self.places.shape}, images and objects ask {expected}")
        if self.offsets is not None and self.offsets.shape != (scenes, len(self.objects), 3):
            raise ValueError(f"offsets are {self.offsets.shape}, scenes and objects ask {expected}")
        empty = np.flatnonzero(~self.visible[:, 0].any(axis=1))
        if len(empty):
            raise ValueError(f"scenes {empty.tolist()[:8]} show no object in the first camera")

    def __len__(self) -> int:
        return len(self.places)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """[M, cameras, objects] whether the object is within the camera's image."""
        inside = (self.places >= 0) & (self.places < 1)
        return np.logical_and.reduce(inside, axis=-1)


@dataclass(frozen=True)
class GroundingBatch:
    """`B` questions with their answers, as `Processor.question` takes them."""

    images: dict[str, NDArray[np.uint8]]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def spoken(place: NDArray[np.float32]) -> str:
    """A place [2] in words: `412 233`."""
    return " ".join(f"{int(coordinate * SCALE):03d}" for coordinate in place)


def question_of(names: list[str]) -> str:
    """What is asked about these objects; several are asked for in the order of the answer."""
    if len(names) == 1:
        return f"Where is the {names[0]}?"
    return "Where is " + " and ".join(f"the {name}" for name in names) + "?"


def answer_of(names: list[str], places: NDArray[np.float32]) -> str:
    """The answer about `names`, at `places` [len(names), 2].

    The place alone for one object, else each with its name: `spoon 412 233; carrot 118 640`.
    """
    if len(names) == 1:
        return spoken(places[0])
    pairs = zip(names, places, strict=True)
    return "; ".join(f"{name} {spoken(place)}" for name, place in pairs)


def grounding_batch(
    grounding: GroundingSet,
    indices: NDArray[np.int64],
    objects_per_answer: int,
    random: np.random.Generator,
) -> GroundingBatch:
    """Ask about visible objects, drawn anew and in random order, in scenes `indices` [B].

    Args:
        grounding: the scenes.
        indices: which of them.
        objects_per_answer: how many objects one answer names; fewer where fewer are in view.
        random: draws objects and their order.
    """
    questions, answers = [], []
    visible = grounding.visible
    for scene in indices:
        seen = random.permutation(np.flatnonzero(visible[scene, 0]))[:objects_per_answer]
        names = [grounding.objects[i] for i in seen]
        questions.append(question_of(names))
        answers.append(answer_of(names, grounding.places[scene, 0, seen]))
    images = {name: frames[indices] for name, frames in grounding.images.items()}
    return GroundingBatch(images, tuple(questions), tuple(answers))
