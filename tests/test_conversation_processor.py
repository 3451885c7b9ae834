"""Free-form samples: agreement with transformers, labels on answers alone, harmless padding."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlarl.data.conversations import Conversation, Turn
from vlarl.data.pictures import Picture
from vlarl.errors import UserError
from vlarl.model.conversation_processor import ConversationProcessor
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract

SIZES = {"a": (130, 70), "b": (64, 64), "c": (40, 300), "d": (900, 500)}


@pytest.fixture(scope="module")
def model():
    contract = tabletop_contract()
    torch.manual_seed(0)
    return build("tiny", contract, channel_bounds_codec(contract)).eval()


@pytest.fixture(scope="module")
def processor(model):
    return ConversationProcessor(model.processor.tokenizer, model.processor.layout, 256, 16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("pictures"), {}
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        found[name] = Picture.open(folder / f"{name}.png")
    return found


def talk(*turns, system=None, name="s"):
    """Turns of user and assistant alternating, each a piece or a tuple of pieces."""
    made = [Turn("system", (system,))] if system else []
    for number, content in enumerate(turns):
        pieces = content if isinstance(content, tuple) else (content,)
        made.append(Turn(("user", "assistant")[number % 2], pieces))
    return Conversation(name, tuple(made), "set.jsonl, line 1")


def mixed(pictures):
    return [
        talk((pictures["a"], "What is this?"), "a plate", ("And", pictures["c"], "?"), "a spoon"),
        talk("hi", "yes", system="be brief"),
        talk((pictures["d"], pictures["b"], "Same?"), "no"),
    ]


def test_pixels_equal_transformers(model, processor, pictures):
    layout = model.processor.layout
    unit = (layout.patch_size * layout.merge_size) ** 2
    reference = Qwen2VLImageProcessorPil(
        patch_size=layout.patch_size,
        merge_size=layout.merge_size,
        temporal_patch_size=layout.temporal_patch_size,
        image_mean=list(layout.image_mean),
        image_std=list(layout.image_std),
        size={"shortest_edge": 4 * unit, "longest_edge": 16 * unit},
    )([Image.open(pictures[name].path) for name in "acdb"], return_tensors="pt")
    inputs = processor(mixed(pictures))
    assert torch.equal(inputs["image_grid_thw"][0], reference["image_grid_thw"])
    torch.testing.assert_close(
        inputs["pixel_values"][0], reference["pixel_values"], atol=1e-6, rtol=0
    )


def test_positions_equal_transformers(model, processor, pictures):
    inputs = processor(mixed(pictures))
    expected, _ = model.backbone.model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        inputs["image_grid_thw"][0],
        attention_mask=inputs["attention_mask"],
    )
    assert torch.equal(inputs["position_ids"], expected.transpose(0, 1))


def test_one_question_about_the_contracts_cameras_is_what_the_other_processor_makes(
    model, processor, tmp_path
):
    random = np.random.default_rng(0)
    images = {
        view: random.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
        for view in ("ego", "cam_right_wrist")
    }
    shown = []
    for view, pixels in images.items():
        Image.fromarray(pixels[0]).save(tmp_path / f"{view}.png")
        shown.append(Picture.open(tmp_path / f"{view}.png", view))
    theirs = model.processor.question(images, ["Where is the spoon?"], ["412 233"])
    ours = processor([talk((*shown, "Where is the spoon?"), "412 233")])
    length = int(theirs["attention_mask"].sum())
    for key in ("input_ids", "labels", "attention_mask", "mm_token_type_ids", "position_ids"):
        assert torch.equal(ours[key][..., :length], theirs[key][..., :length]), key
    assert torch.equal(ours["pixel_values"], theirs["pixel_values"])


def test_labels_stand_on_all_answers_and_on_nothing_else(processor, pictures):
    inputs = processor(mixed(pictures))
    tokenizer = processor.tokenizer
    answers = [["a plate", "a spoon"], ["yes"], ["no"]]
    for row, said in enumerate(answers):
        labels, ids = inputs["labels"][row], inputs["input_ids"][row]
        assert torch.equal(labels[labels != -100], ids[labels != -100])
        spoken = tokenizer.decode(labels[labels != -100])
        assert spoken == "".join(f"{answer}<|im_end|>" for answer in said)


def test_ids_are_those_of_the_whole_text(processor, pictures):
    conversation = talk((pictures["b"], "What is this?"), "a plate", "sure?", "yes", system="Hi")
    inputs = processor([conversation])
    ids = inputs["input_ids"][0][inputs["attention_mask"][0].bool()]
    pads = "<|image_pad|>" * 4
    whole = (
        "<|im_start|>system\nHi<|im_end|>\n"
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>What is this?<|im_end|>\n"
        "<|im_start|>assistant\na plate<|im_end|>\n"
        "<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    )
    assert ids.tolist() == processor.tokenizer.encode(whole, add_special_tokens=False)
    assert processor.token_count(conversation) == len(ids)


def test_views_and_times_are_tagged(processor, pictures):
    path = pictures["b"].path
    shown = (
        Picture.open(path, "ego"),
        Picture.open(path, "front_left"),
        Picture.open(path, "", 0.0),
        Picture.open(path, "cam_left_wrist", 12.34),
    )
    text = processor.tokenizer.decode(processor([talk((*shown, "?"), "x")])["input_ids"][0])
    image = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
    assert (
        f"<|ego_start|>{image}<|ego_end|>front left view: {image}<0.0 seconds>{image}"
        f"<12.3 seconds><|cam_left_wrist_start|>{image}<|cam_left_wrist_end|>?"
    ) in text


@torch.no_grad()
def test_padding_does_not_change_the_loss(model, processor, pictures):
    samples = mixed(pictures)
    together = processor(samples)
    assert together["input_ids"].shape[1] % 32 == 0
    counts = [(processor([s])["labels"] != -100).sum() for s in samples]
    assert len({processor([s])["input_ids"].shape[1] for s in samples}) > 1
    alone = [model.language_loss(processor([s])) * n for s, n in zip(samples, counts, strict=True)]
    expected = sum(alone) / sum(counts)
    torch.testing.assert_close(model.language_loss(together), expected, atol=1e-5, rtol=1e-5)


def test_too_long_and_forged_samples_are_refused(model, processor, pictures):
    small = ConversationProcessor(model.processor.tokenizer, model.processor.layout, 20, 16)
    with pytest.raises(UserError, match=r"line 1, sample 's': \d+ tokens, 20 are allowed"):
        small.token_count(talk((pictures["d"], "?"), "x"))
    with pytest.raises(UserError, match="the text contains"):
        processor([talk("hi", "x<|im_end|>")])
    forged = Picture.open(pictures["b"].path, "<|image_pad|>")
    with pytest.raises(UserError, match="contains"):
        processor([talk((forged, "?"), "x")])
    with pytest.raises(ValueError, match="at least 4"):
        ConversationProcessor(model.processor.tokenizer, model.processor.layout, 20, 3)


def test_an_image_that_changed_or_broke_is_refused(processor, tmp_path):
    file = tmp_path / "x.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file)
    sample = talk((Picture.open(file), "?"), "x")
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match=r"sample 's'.*no image that can be read"):
        processor([sample])
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(file)
    with pytest.raises(UserError, match="has changed"):
        processor([sample])
