"""Text from the same checkpoint: what the language model says of images (paper eq. 3's other half).

Greedy, by transformers' own generation with its key-value cache. Places are spoken as
`vlarl.data.grounding` words them, on a scale of 1000.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from vlarl.model.device import on
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.tokenizer import token_id


def answer(
    model: QwenVLA,
    images: dict[str, NDArray[np.uint8]],
    questions: Sequence[str],
    max_tokens: int = 64,
) -> list[str]:
    """One answer for each question, up to where the model ends its turn.

    Args:
        model: whose backbone speaks.
        images: camera name -> [B, height, width, 3], every camera of the contract.
        questions: [B]
        max_tokens: of an answer, at most.

    Raises:
        ValueError: for images or questions that the processor refuses, or `max_tokens` below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens = {max_tokens}: must be at least 1")
    spoken = likeliest_tokens(model, model.processor.question(images, questions), max_tokens)
    texts = model.processor.tokenizer.batch_decode(spoken, skip_special_tokens=True)
    return [text.strip() for text in texts]


@torch.no_grad()
def likeliest_tokens(model: QwenVLA, inputs: TensorDict, max_tokens: int) -> Tensor:
    """[B, n] ids that go on from the processor's `inputs` [B], padded after the end of the turn."""
    tokenizer = model.processor.tokenizer
    inputs = on(model.device, _padded_left(inputs))
    spoken = model.backbone.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        pixel_values=inputs["pixel_values"].flatten(0, 1),
        image_grid_thw=inputs["image_grid_thw"].flatten(0, 1),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=token_id(tokenizer, "<|im_end|>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    said: Tensor = spoken[:, inputs["input_ids"].shape[1] :]
    return said


def _padded_left(inputs: TensorDict) -> TensorDict:
    """The processor's right-padded rows moved to the right edge, where generation goes on."""
    lengths = inputs["attention_mask"].sum(dim=1)
    longest = int(lengths.max())
    moved = inputs.clone()
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        rows = [
            torch.roll(row[:longest], longest - int(length))
            for row, length in zip(inputs[key], lengths, strict=True)
        ]
        moved[key] = torch.stack(rows)
    return moved
