"""Boxes and points in words: round trip, what is refused."""

import numpy as np
import pytest

from vlarl.data.boxes import Place, format_places, parse_places


def test_the_wording_is_qwens():
    text = format_places([Place("spoon", (0.1, 0.25, 0.5, 1.0)), Place("tip", (0.0, 0.4996))])
    assert text == (
        '[{"bbox_2d": [100, 250, 500, 1000], "label": "spoon"}, '
        '{"point_2d": [0, 500], "label": "tip"}]'
    )


def test_round_trip_within_half_a_unit():
    random = np.random.default_rng(0)
    for _ in range(200):
        low = random.uniform(0, 0.9, 2)
        high = low + random.uniform(0.002, 1 - low)
        box = Place('a "quoted" cup', (*low.tolist(), *high.tolist()))
        point = Place("b", tuple(random.uniform(0, 1, 2).tolist()))
        found = parse_places(format_places([box, point]))
        assert [place.label for place in found] == [box.label, point.label]
        for place, given in zip(found, (box, point), strict=True):
            error = np.abs(np.subtract(place.coordinates, given.coordinates)).max()
            assert error <= 0.5 / 1000 + 1e-12


def test_fenced_text_and_a_single_object_are_read():
    fenced = '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "x"}]\n```'
    assert parse_places(fenced) == (Place("x", (0.001, 0.002, 0.003, 0.004)),)
    assert parse_places('{"point_2d": [1, 2]}')[0].coordinates == (0.001, 0.002)


@pytest.mark.parametrize(
    ("coordinates", "words"),
    [
        ((0.1, 0.2, 1.2, 0.4), "within the image"),
        ((-0.1, 0.2), "within the image"),
        ((float("nan"), 0.2), "within the image"),
        ((0.5, 0.2, 0.4, 0.4), "right and down"),
        ((0.1, 0.2, 0.3), "3 coordinates"),
    ],
)
def test_places_out_of_range_are_refused(coordinates, words):
    with pytest.raises(ValueError, match=words):
        Place("cup", coordinates)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at 12 13", "no JSON"),
        ('[{"bbox_2d": [1, 2, 3, 1001], "label": "x"}]', "within the image"),
        ('[{"bbox_2d": [1, 2, 3], "label": "x"}]', "needs 4 numbers"),
        ('[{"point_2d": [1, "2"], "label": "x"}]', "needs 2 numbers"),
        ('[{"label": "x"}]', "neither"),
        ("[3]", "no box or point"),
    ],
)
def test_text_that_is_no_place_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_places(text)
