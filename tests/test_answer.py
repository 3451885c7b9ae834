"""Text generation: the next most likely token, one after another, from images and question."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors import cli
from vlarl.model.answer import answer, likeliest_tokens
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA

QUESTIONS = ["Where is the spoon?", "What is on the table near the yellow block?", "Where?"]


@pytest.fixture(scope="module")
def model() -> QwenVLA:
    """Random, but with weights large enough that images and words matter."""
    torch.manual_seed(0)
    contract = tabletop_contract()
    model = build("tiny", contract, channel_bounds_codec(contract)).eval()
    for parameter in model.backbone.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def images(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (batch, 64, 64, 3)
    return {
        name: random.integers(0, 256, shape, dtype=np.uint8) for name in ("ego", "cam_right_wrist")
    }


def test_each_token_is_the_likeliest_after_those_before_it(model: QwenVLA) -> None:
    """The whole text read at once must predict each token of the answer at the place before it."""
    inputs = model.processor.question(images(3), QUESTIONS)
    said = likeliest_tokens(model, inputs, 6)
    lengths = inputs["attention_mask"].sum(dim=1)
    whole = inputs.clone()
    for row, length in enumerate(lengths.tolist()):
        places = torch.arange(length, length + 6)
        whole["input_ids"][row, places] = said[row]
        whole["attention_mask"][row, places] = 1
        whole["position_ids"][row, :, places] = (
            1 + inputs["position_ids"][row].max() + (torch.arange(6))
        )
    with torch.no_grad():
        likeliest = model.language_logits(whole).argmax(dim=-1)
    for row, length in enumerate(lengths.tolist()):
        assert likeliest[row, length - 1 : length + 5].tolist() == said[row].tolist()
    assert len({tuple(row) for row in said.tolist()}) == 3


def test_answers_depend_on_image_and_question_but_not_on_neighbours(model: QwenVLA) -> None:
    seen = images(3)
    together = answer(model, seen, QUESTIONS, max_tokens=8)
    alone = [
        answer(model, {name: f[row : row + 1] for name, f in seen.items()}, [question], 8)[0]
        for row, question in enumerate(QUESTIONS)
    ]
    assert together == alone
    assert answer(model, images(3, seed=1), QUESTIONS, max_tokens=8) != together
    assert answer(model, seen, QUESTIONS[::-1], max_tokens=8) != together


def test_a_trained_answer_comes_back_and_ends(model: QwenVLA) -> None:
    learner = QwenVLA(
        model.config, model.expert_config, model.contract, model.codec, model.processor
    )
    seen, said = images(2), ["412 233", "118 640"]
    inputs = learner.processor.question(seen, QUESTIONS[:2], said)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = learner.language_loss(inputs)
        loss.backward()
        optimizer.step()
    assert answer(learner.eval(), seen, QUESTIONS[:2]) == said


def test_the_command_answers_from_files(tmp_path: Path, model: QwenVLA, capsys) -> None:
    model.save_pretrained(tmp_path / "model")
    for name, frames in images(1).items():
        Image.fromarray(frames[0]).save(tmp_path / f"{name}.png")
    files = f"images={tmp_path}/ego.png,{tmp_path}/cam_right_wrist.png"
    words = ["generate", str(tmp_path / "model"), f"question={QUESTIONS[0]}", "max_tokens=4"]
    assert cli.run([*words, files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found["answer"]] == answer(model, images(1), QUESTIONS[:1], max_tokens=4)
    for wrong, message in (
        (f"images={tmp_path}/ego.png", "the checkpoint sees 2: ego, cam_right_wrist"),
        (f"images={tmp_path}/none.png,x.png", "none.png is no image"),
        ("images=", "generate needs images="),
    ):
        assert cli.run([*words, wrong]) == 2
        assert message in capsys.readouterr().err
    Image.new("RGB", (32, 64)).save(tmp_path / "ego.png")
    assert cli.run([*words, files]) == 2
    assert "is 32x64; camera ego has 64x64" in capsys.readouterr().err
