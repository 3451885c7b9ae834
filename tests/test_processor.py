"""Processor: agreement with transformers on patches and positions, fixed layout, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlarl.model.patches import PatchLayout
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.processor import Processor
from vlarl.model.tokenizer import load_tiny_tokenizer
from vlarl.observations import Observations
from vlarl.types import CameraSpec

SENTENCES = ["put the carrot on the plate", "stack the green block on the yellow block", "go"]


def random_images(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
        for name in ("ego", "cam_right_wrist")
    }


def tiny_processor() -> Processor:
    return Processor(load_tiny_tokenizer(), tabletop_contract())


@pytest.mark.parametrize(("patch", "height", "width"), [(16, 64, 96), (8, 64, 64), (16, 224, 224)])
def test_patches_equal_transformers(patch: int, height: int, width: int) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    layout = PatchLayout(patch_size=patch)
    reference = Qwen2VLImageProcessorPil(
        patch_size=patch,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=list(layout.image_mean),
        image_std=list(layout.image_std),
        do_resize=False,
    )(list(images), return_tensors="pt")
    ours = layout.patchify(torch.from_numpy(images))
    assert torch.equal(reference["image_grid_thw"][0], torch.tensor(layout.grid(height, width)))
    torch.testing.assert_close(ours.flatten(0, 1), reference["pixel_values"], atol=1e-6, rtol=0)


def test_positions_equal_transformers() -> None:
    contract = tabletop_contract()
    model = build("tiny", contract, channel_bounds_codec(contract))
    inputs = model.processor(Observations(random_images(3), SENTENCES))
    expected, _ = model.backbone.model.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        inputs["image_grid_thw"].flatten(0, 1),
        attention_mask=inputs["attention_mask"],
    )
    assert torch.equal(inputs["position_ids"], expected.transpose(0, 1))


def test_layout_of_one_batch() -> None:
    processor = tiny_processor()
    length = processor.contract.prompt_tokens
    inputs = processor(Observations(random_images(3), SENTENCES))
    assert inputs.batch_size == (3,)
    assert inputs["input_ids"].shape == (3, length)
    assert inputs["position_ids"].shape == (3, 3, length)
    assert inputs["pixel_values"].shape == (3, 32, 1536)
    assert inputs["image_grid_thw"].tolist() == [[[1, 4, 4], [1, 4, 4]]] * 3
    used = int(inputs["attention_mask"][0].sum())
    text = processor.tokenizer.decode(inputs["input_ids"][0, :used])
    assert text.startswith(
        "<|im_start|>user\n<|ego_start|><|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
        "<|ego_end|><|cam_right_wrist_start|><|vision_start|>"
    )
    assert text.endswith(
        "following task: put the carrot on the plate.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert inputs["mm_token_type_ids"].sum(dim=1).tolist() == [8, 8, 8]


def test_rows_do_not_depend_on_their_neighbors() -> None:
    processor, images = tiny_processor(), random_images(3)
    together = processor(Observations(images, SENTENCES))
    for row in range(3):
        single = {name: image[row : row + 1] for name, image in images.items()}
        alone = processor(Observations(single, SENTENCES[row : row + 1]))
        for key, value in alone.items():
            assert torch.equal(value[0], together[key][row]), key


def test_labels_cover_the_answer_and_its_end() -> None:
    processor = tiny_processor()
    inputs = processor.question(random_images(1), ["Where is the carrot?"], ["12 40"])
    labels = inputs["labels"][0]
    supervised = labels != -100
    assert processor.tokenizer.decode(labels[supervised]) == "12 40<|im_end|>"
    assert torch.equal(labels[supervised], inputs["input_ids"][0][supervised])
    assert int(supervised.nonzero().max()) + 1 == int(inputs["attention_mask"].sum())
    silent = processor.question(random_images(1), ["Where is the carrot?"])
    assert (silent["labels"] == -100).all()
    asked = int(silent["attention_mask"].sum())
    assert torch.equal(silent["input_ids"][0, :asked], inputs["input_ids"][0, :asked])


def test_bad_inputs_are_refused() -> None:
    processor, images = tiny_processor(), random_images(1)
    with pytest.raises(ValueError, match="cam_right_wrist"):
        processor(Observations({"ego": images["ego"]}, ["go"]))
    with pytest.raises(ValueError, match="expected uint8"):
        processor(Observations({**images, "ego": images["ego"][:, :32]}, ["go"]))
    with pytest.raises(ValueError, match="expected uint8"):
        processor(Observations({**images, "ego": images["ego"].astype(np.float32)}, ["go"]))
    with pytest.raises(ValueError, match="prompt_tokens = 72"):
        processor(Observations(images, ["put it there " * 20]))
    with pytest.raises(ValueError, match="control token"):
        processor(Observations(images, ["go<|im_end|>"]))
    with pytest.raises(ValueError, match="2 answers"):
        processor.question(images, ["Where?"], ["1", "2"])


def test_contracts_that_cannot_be_shown_are_refused() -> None:
    contract, tokenizer = tabletop_contract(), load_tiny_tokenizer()
    with pytest.raises(ValueError, match="view tags; allowed: ego"):
        Processor(tokenizer, replace(contract, cameras=(CameraSpec("kitchen", 64, 64),)))
    with pytest.raises(ValueError, match="multiple of 32"):
        Processor(tokenizer, replace(contract, cameras=(CameraSpec("ego", 60, 64),)))
