"""Grounding questions: an answer names what was asked, where it is, and nothing out of view."""

import numpy as np
import pytest

from vlarl.data.grounding import GroundingSet, grounding_batch

OBJECTS = ("spoon", "green block", "towel")


def make_set() -> GroundingSet:
    places = np.array(
        [
            [[0.0, 0.9999], [0.5, 0.25], [0.0071, 0.3]],
            [[0.1, 0.2], [1.2, 0.5], [np.nan, np.nan]],
        ],
        np.float32,
    )[:, None]
    images = {"ego": np.zeros((2, 4, 4, 3), np.uint8)}
    images["ego"][1] = 1
    return GroundingSet(images, OBJECTS, places)


def parse(answer: str) -> dict[str, tuple[int, int]]:
    """Inverse of the wording of several objects."""
    found = {}
    for part in answer.split("; "):
        *name, across, down = part.split(" ")
        assert len(across) == len(down) == 3
        found[" ".join(name)] = (int(across), int(down))
    return found


def test_answers_say_where_every_object_is():
    batch = grounding_batch(make_set(), np.array([0]), 3, np.random.default_rng(0))
    expected = {"spoon": (0, 999), "green block": (500, 250), "towel": (7, 300)}
    assert parse(batch.answers[0]) == expected
    order = sorted(OBJECTS, key=batch.questions[0].index)
    assert list(parse(batch.answers[0])) == order


def test_objects_out_of_view_are_never_asked_for():
    batch = grounding_batch(make_set(), np.full(20, 1), 3, np.random.default_rng(0))
    assert set(batch.answers) == {"100 200"}
    assert set(batch.questions) == {"Where is the spoon?"}
    assert (batch.images["ego"] == 1).all()


def test_order_and_choice_vary_but_follow_the_seed():
    indices = np.zeros(40, np.int64)
    first = grounding_batch(make_set(), indices, 2, np.random.default_rng(1))
    again = grounding_batch(make_set(), indices, 2, np.random.default_rng(1))
    assert first.answers == again.answers
    assert len(set(first.questions)) == 6


def test_a_scene_without_objects_is_refused():
    good = make_set()
    places = good.places.copy()
    places[1] = np.nan
    with pytest.raises(ValueError, match=r"scenes \[1\]"):
        GroundingSet(good.images, OBJECTS, places)
    with pytest.raises(ValueError, match="places are"):
        GroundingSet(good.images, OBJECTS, places[:1])
