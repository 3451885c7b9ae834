"""Questions about tables: true by the simulator's own state, balanced, readable, reproducible."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from actors import cli
from actors.synthesis.questions import OPEN, YES_NO
from actors.synthesis.seen import look
from actors.synthesis.vision_language import FILE, random_table
from envservers.raycaster import project
from envservers.tabletop.layouts import SHAPE
from envservers.tabletop.renderer import FIELD_OF_VIEW
from envservers.tabletop.workbench import Workbench
from vlarl.data.boxes import parse_places
from vlarl.data.conversations import ConversationSet
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.presets import tabletop_contract
from vlarl.model.processor import Processor
from vlarl.model.tokenizer import load_tiny_tokenizer

SLOTS = 16


@pytest.fixture(scope="module")
def tables():
    """Tables with what is seen of them, and where their objects are in the fixed camera's image."""
    bench, ids = Workbench(SLOTS, 96), np.arange(SLOTS)
    random = np.random.default_rng(0)
    defects = bench.lay(ids, [random_table(random) for _ in ids])
    assert defects == [""] * SLOTS
    found = look(bench, ids)
    pose = bench.renderer.camera_pose(ids, "ego")
    places = []
    for slot, seen in enumerate(found):
        points = np.stack(list(seen.facts.positions.values()))
        projected = project(np.repeat(points[None], SLOTS, axis=0), pose, FIELD_OF_VIEW["ego"])
        places.append(dict(zip(seen.facts.positions, projected[slot], strict=True)))
    return list(zip(found, places, strict=True))


def named(seen, name):
    return next(thing for thing in seen.facts.layout.present if seen.name(thing) == name)


def asked(tables, function, *rest):
    """Every question that a function has for the tables, several times over."""
    random = np.random.default_rng(1)
    for seen, places in tables * 4:
        question = function(seen, random, *rest)
        if question is not None:
            yield seen, places, question


def ask(name):
    return next(function for function in (*OPEN, *YES_NO) if function.__name__ == name)


def test_boxes_and_points_hold_what_they_name(tables):
    borne = 0
    for name in ("one_box", "all_boxes"):
        for seen, places, question in asked(tables, ask(name)):
            found = parse_places(question.answer)
            things = [named(seen, place.label) for place in found]
            if name == "all_boxes":
                assert sorted(things) == sorted(seen.facts.layout.present)
                assert [p.coordinates[0] for p in found] == sorted(p.coordinates[0] for p in found)
            for thing, place in zip(things, found, strict=True):
                if thing in seen.facts.layout.stacked.values():
                    borne += 1
                    continue
                x1, y1, x2, y2 = place.coordinates
                u, v = places[thing]
                inside = x1 - 0.02 < u < x2 + 0.02 and y1 - 0.02 < v < y2 + 0.02
                is_whole = seen.masks["ego"][thing].mean() > 0.004
                assert inside or not is_whole or not (0 < u < 1 and 0 < v < 1)
                assert x2 - x1 < 0.35
                assert y2 - y1 < 0.35
    assert borne
    for seen, _, question in asked(tables, ask("point")):
        (place,) = parse_places(question.answer)
        column, row = (int(c * 96) for c in place.coordinates)
        assert seen.masks["ego"][named(seen, place.label)][row, column]


@pytest.mark.parametrize("wanted", [True, False])
def test_relations_are_true_of_the_picture(tables, wanted):
    words = {"to the left of": (0, -1), "to the right of": (0, 1)}
    words |= {"in front of": (1, 1), "behind": (1, -1)}
    seen_words = Counter()
    for seen, places, question in asked(tables, ask("relation"), wanted):
        assert question.answer == ("yes" if wanted else "no")
        (said,) = (word for word in words if f" {word} the " in question.text)
        first, second = question.text.removesuffix("?").split(f" {said} the ")
        axis, sign = words[said]
        one = named(seen, first.removeprefix("Seen from the camera, is the "))
        gap = (places[one] - places[named(seen, second)])[axis] * sign
        assert gap > 0 if wanted else gap < 0
        seen_words[said] += 1
    assert set(seen_words) == set(words)


@pytest.mark.parametrize("wanted", [True, False])
def test_on_top_is_what_was_stacked(tables, wanted):
    number = 0
    for seen, _, question in asked(tables, ask("on_top"), wanted):
        number += 1
        word = " in the " if " in the " in question.text else " on top of the "
        above, below = question.text.removeprefix("Is the ").removesuffix("?").split(word)
        stacked = seen.facts.layout.stacked.get(named(seen, above)) == named(seen, below)
        assert stacked == wanted
    assert number > 5


def test_counts_colors_and_shapes_are_the_layouts(tables):
    for seen, _, question in asked(tables, ask("count")):
        layout = seen.facts.layout
        what = question.text.removeprefix("How many ").removesuffix(" are on the table?")
        expected = {
            "objects": len(layout.present),
            "blocks": sum("block" in layout.name(thing) for thing in layout.present),
        }.get(what, list(layout.colors.values()).count(what.split()[0]))
        assert question.answer == str(expected)
    for seen, _, question in asked(tables, ask("color_of")):
        thing = question.text.removeprefix("What color is the ").removesuffix("?")
        things = [t for t in seen.facts.layout.present if t == thing or t.endswith(f"_{thing}")]
        assert question.answer == seen.facts.layout.colors[things[0]]
        assert len(things) == 1
    for seen, _, question in asked(tables, ask("shape_of")):
        color = question.text.removeprefix("What shape is the ").removesuffix(" object?")
        (thing,) = (t for t, c in seen.facts.layout.colors.items() if c == color)
        assert question.answer == SHAPE[thing]


def test_the_nearest_and_the_list_of_a_direction(tables):
    for seen, _, question in asked(tables, ask("nearest")):
        of = named(seen, question.text.split("nearest to the ")[1].removesuffix("?"))
        here = seen.facts.positions
        gaps = {t: np.linalg.norm((here[t] - here[of])[:2]) for t in here if t != of}
        assert question.answer == f"the {seen.name(min(gaps, key=gaps.get))}"
    sizes = Counter()
    for seen, places, question in asked(tables, ask("direction_list")):
        if "to the left of" not in question.text:
            continue
        of = named(seen, question.text.split(" the left of the ")[1].removesuffix("?"))
        said = question.answer.replace(" and ", ", ").split(", ")
        things = [named(seen, s.removeprefix("the ")) for s in said if s != "nothing"]
        sizes[len(things)] += 1
        for thing, (u, _) in places.items():
            if thing != of and abs(u - places[of][0]) > 0.05:
                assert (thing in things) == (u < places[of][0])
    assert len(sizes) > 2


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_said_to_exist_does(tables, wanted):
    for seen, _, question in asked(tables, ask("exists"), wanted):
        name = question.text.split(maxsplit=3)[3].removesuffix(" on the table?")
        plain = {seen.name(t) for t in seen.facts.layout.present}
        plain |= {n.split(maxsplit=1)[1] for n in plain if n.startswith(("small", "large"))}
        assert (name in plain) == wanted


def test_two_views(tables):
    answers = Counter()
    for seen, _, question in asked(tables, ask("which_view")):
        thing = named(seen, question.text.split("show the ")[1].removesuffix("?"))
        shown = tuple(bool(seen.masks[camera][thing].any()) for camera in question.views)
        assert (
            question.answer
            in {
                (True, True): ("both",),
                (True, False): ("the fixed camera only",),
                (False, True): ("the wrist camera only",),
            }[shown]
        )
        answers[question.answer] += 1
    assert len(answers) >= 2
    for seen, _, question in asked(tables, ask("box_in_view")):
        (place,) = parse_places(question.answer)
        mask = seen.masks["cam_right_wrist"][named(seen, place.label)]
        x1, y1, x2, y2 = (round(c * 96) for c in place.coordinates)
        assert mask[y1:y2, x1:x2].sum() == mask.sum()


def test_nothing_hidden_is_asked_for(tables):
    random = np.random.default_rng(2)
    for seen, _ in tables:
        thing = seen.facts.layout.present[0]
        masks = {camera: dict(own) for camera, own in seen.masks.items()}
        for own in masks.values():
            own[thing] = np.zeros_like(own[thing])
        blind = replace(seen, masks=masks)
        words = f" {seen.name(thing)}"
        for _ in range(5):
            questions = [function(blind, random) for function in OPEN]
            questions += [function(blind, random, yes) for function in YES_NO for yes in (0, 1)]
            for question in filter(None, questions):
                assert question.kind not in ("caption", "boxes", "count", "nearest", "direction")
                assert words not in f" {question.text} {question.answer}"


def test_a_written_set_is_read_fits_a_model_and_comes_again(tmp_path, capsys):
    for name in ("one", "two"):
        words = ["synth", "vl", f"out={tmp_path / name}", "samples=60", "image_size=64", "--json"]
        assert cli.run(words) == 0
        result = json.loads(capsys.readouterr().out)
    assert result["samples"] == 60
    assert len(result["questions"]) == len(OPEN) + len(YES_NO)
    for share in result["yes"].values():
        assert 0.35 < share < 0.65
    one, two = ((tmp_path / name / FILE).read_text() for name in ("one", "two"))
    assert one == two
    pictures = sorted((tmp_path / "one/images").iterdir())
    assert len(pictures) == 2 * result["scenes"]
    for picture in pictures:
        assert picture.read_bytes() == (tmp_path / "two/images" / picture.name).read_bytes()
    conversations = ConversationSet(tmp_path / "one" / FILE)
    layout = Processor(load_tiny_tokenizer(), tabletop_contract()).layout
    processor = ConversationProcessor(load_tiny_tokenizer(), layout, 512, 16)
    counts = [processor.token_count(conversation) for conversation in conversations]
    assert len(counts) == 60
    assert any(len(conversation.turns) > 2 for conversation in conversations)
    assert {len(c.pictures) for c in conversations} == {1, 2}
    assert cli.run(["synth", "vl", f"out={tmp_path / 'one'}", "samples=1"]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["synth", "vl"], "needs out=DIR"),
        (["synth", "vll", "out=x"], "Did you mean vl"),
        (["synth", "vl", "out=x", "samples=0"], "samples = '0'"),
        (["synth", "vl", "out=x", "sample=3"], "Did you mean samples"),
    ],
)
def test_mistakes(capsys, words, message):
    assert cli.run(words) == 2
    assert message in capsys.readouterr().err
