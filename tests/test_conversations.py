"""Sets of conversations: both formats, lazily read, every defect with its place."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from vlarl.data.conversations import Conversation, ConversationSet, Turn
from vlarl.data.pictures import Picture, fitted_size
from vlarl.errors import UserError


def save_image(path, width=40, height=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def message(role, *parts):
    return {"role": role, "content": parts[0] if len(parts) == 1 else list(parts)}


def image(name, **details):
    return {"type": "image", "image": name, **details}


def text(words):
    return {"type": "text", "text": words}


def write_lines(folder, *rows):
    path = folder / "set.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_both_formats_say_the_same(tmp_path):
    save_image(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    save_image(tmp_path / "sub/b.png", 20, 50)
    turns = [
        ("human", "Look: <image> and <image>\nsame?"),
        ("gpt", "no"),
        ("human", "sure?"),
        ("gpt", " yes\n"),
    ]
    llava = {
        "id": "pair",
        "images": ["a.png", "sub/b.png"],
        "views": ["ego", None],
        "seconds": [None, 0.5],
        "conversations": [{"from": who, "value": value} for who, value in turns],
    }
    (tmp_path / "set.json").write_text(json.dumps([llava]))
    parts = [text("Look: "), image("a.png", view="ego"), text(" and ")]
    parts += [image("sub/b.png", seconds=0.5), text("\nsame?")]
    row = {
        "id": "pair",
        "messages": [
            message("user", *parts),
            message("assistant", "no"),
            message("user", "sure?"),
            message("assistant", "yes"),
        ],
    }
    one = ConversationSet(tmp_path / "set.json")[0]
    other = ConversationSet(write_lines(tmp_path, row))[0]
    assert one.turns == other.turns
    assert one.identity == other.identity == "pair"
    shown = one.pictures
    assert [(p.height, p.width, p.view, p.seconds) for p in shown] == [
        (30, 40, "ego", None),
        (50, 20, "", 0.5),
    ]


def test_lines_are_found_wherever_they_start(tmp_path):
    rows = [
        {"messages": [message("user", f"é{n}" * (n + 1)), message("assistant", str(n))]}
        for n in range(7)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path = tmp_path / "set.jsonl"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    conversations = ConversationSet(path)
    assert len(conversations) == 7
    for n in (5, 0, 6):
        assert conversations[n].turns[1].content == (str(n),)
        assert conversations[n].place.endswith(f"line {2 * n + 1}")
    assert [c.identity for c in conversations] == [str(n) for n in range(7)]


def test_pixels_are_the_files(tmp_path):
    pixels = save_image(tmp_path / "a.png")
    picture = Picture.open(tmp_path / "a.png")
    assert np.array_equal(picture.pixels(30, 40), pixels)
    resized = Image.fromarray(pixels).resize((64, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(picture.pixels(32, 64), np.asarray(resized))


def test_sizes_are_transformers():
    random = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(side) for side in random.integers(8, 1200, 2))
        found = fitted_size(height, width, 32, 4 * 32**2, 100 * 32**2)
        assert found == smart_resize(height, width, 32, 4 * 32**2, 100 * 32**2)


GOOD = [message("user", "hi"), message("assistant", "yes")]
BROKEN = {
    "missing image": ([message("user", image("no.png"), text("?")), GOOD[1]], "is missing"),
    "not an image": ([message("user", image("set.jsonl"), text("?")), GOOD[1]], "no image that"),
    "no assistant": ([GOOD[0]], "no assistant turn"),
    "roles out of order": ([GOOD[1], GOOD[0]], "must take turns"),
    "two users": ([GOOD[0], *GOOD], "must take turns"),
    "ends with the user": ([*GOOD, GOOD[0]], "must take turns"),
    "late system": ([*GOOD, message("system", "be brief")], "must take turns"),
    "unknown role": ([message("robot", "hi"), GOOD[1]], "'robot' is unknown"),
    "empty answer": ([GOOD[0], message("assistant", " \n")], "turn 2 (assistant) is empty"),
    "image in answer": ([GOOD[0], message("assistant", image("a.png"), text("x"))], "shows an"),
    "odd part": ([message("user", {"type": "video", "video": "a"}, text("?")), GOOD[1]], "text or"),
    "odd seconds": ([message("user", image("a.png", seconds="1"), text("?")), GOOD[1]], "number"),
    "no content": ([{"role": "user"}, GOOD[1]], "needs role and content"),
    "odd content": ([{"role": "user", "content": 3}, GOOD[1]], "neither text nor"),
    "no messages": ([], "a list of turns"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_defect_is_named_with_its_place(tmp_path, name):
    messages, words = BROKEN[name]
    save_image(tmp_path / "a.png")
    bad = {"id": "s7", "messages": messages}
    conversations = ConversationSet(write_lines(tmp_path, {"messages": GOOD}, "", bad))
    assert conversations[0].turns[0].content == ("hi",)
    with pytest.raises(UserError) as caught:
        conversations[1]
    for part in ("set.jsonl, line 3", "'s7'", words):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"image": "a.png", "conversations": [("human", "?"), ("gpt", "x")]}, "0 <image>"),
        ({"conversations": [("human", "<image>?"), ("gpt", "x")]}, "1 <image> placeholders for 0"),
        ({"image": "a.png", "views": [], "conversations": [("human", "<image>")]}, "0 views"),
        ({"conversations": [("ape", "?"), ("gpt", "x")]}, "'ape'"),
        ({"conversations": [("human", "?"), ("human", "x")]}, "no assistant"),
    ],
)
def test_each_llava_defect_is_named_with_its_place(tmp_path, entry, words):
    save_image(tmp_path / "a.png")
    rows = [{"from": who, "value": value} for who, value in entry["conversations"]]
    (tmp_path / "set.json").write_text(json.dumps([{"id": "q", **entry, "conversations": rows}]))
    with pytest.raises(UserError) as caught:
        list(ConversationSet(tmp_path / "set.json"))
    for part in ("set.json, entry 1", "'q'", words):
        assert part in str(caught.value)


def test_files_that_hold_no_set_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "broken.json").write_text("[")
    names = {"empty.jsonl": "no conversations", "object.json": "a list", "broken.json": "no JSON"}
    names |= {"nowhere.jsonl": "no such file", "set.txt": "LLaVA"}
    for name, words in names.items():
        with pytest.raises(UserError, match=words):
            ConversationSet(tmp_path / name)
    with pytest.raises(UserError, match="line 2: no JSON"):
        list(ConversationSet(write_lines(tmp_path, {"messages": GOOD}, "{")))
    with pytest.raises(UserError, match="stand in their content"):
        list(ConversationSet(write_lines(tmp_path, {"messages": GOOD, "images": ["a.png"]})))


def test_a_conversation_needs_an_answer():
    with pytest.raises(ValueError, match="nothing to learn"):
        Conversation("x", (Turn("user", ("hi",)),))
