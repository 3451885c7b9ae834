"""A Qwen3.5 folder as plain transformers writes it, in the model: same numbers, named defects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLImageProcessorPil, Qwen3_5Config, Qwen3_5ForConditionalGeneration
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from vlarl.errors import CheckpointError, ConfigError
from vlarl.model.backbone import hidden_states
from vlarl.model.presets import build, channel_bounds_codec, load_preset, tabletop_contract
from vlarl.model.pretrained import load_pretrained
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.tokenizer import CONTROL_TOKENS, load_tiny_tokenizer, special_tokens, token_id
from vlarl.observations import Observations


def plain_tokenizer() -> Qwen3_5Tokenizer:
    """The tiny tokenizer as it would be without the view tags."""
    model = json.loads(load_tiny_tokenizer().backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Qwen3_5Tokenizer(vocab=model["vocab"], merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(CONTROL_TOKENS)})
    return tokenizer


def small_config(tokenizer: Any, **text: Any) -> Qwen3_5Config:
    """A Qwen3.5 with both kinds of layers and the tiny preset's width."""
    values = load_preset("tiny").backbone
    linear = {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 64,
    }
    ids = {
        f"{key}_token_id": token_id(tokenizer, f"<|{token}|>")
        for key, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    return Qwen3_5Config(
        **{**values, **ids, "text_config": {**values["text_config"], **linear, **text}}
    )


@pytest.fixture
def plain() -> Qwen3_5ForConditionalGeneration:
    torch.manual_seed(0)
    return Qwen3_5ForConditionalGeneration(small_config(plain_tokenizer())).eval()


@pytest.fixture
def folder(tmp_path: Path, plain: Qwen3_5ForConditionalGeneration) -> Path:
    """What `save_pretrained` of plain transformers makes, in several shards."""
    path = tmp_path / "qwen"
    plain.save_pretrained(path, max_shard_size="2MB")
    assert len(list(path.glob("*.safetensors"))) > 1
    plain_tokenizer().save_pretrained(path)
    Qwen2VLImageProcessorPil(
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(path)
    return path


def model_of(folder: Path) -> QwenVLA:
    pretrained = load_pretrained(str(folder))
    contract = tabletop_contract(64, pretrained)
    return build("tiny", contract, channel_bounds_codec(contract), pretrained)


def sees(model: QwenVLA) -> Any:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    sentences = ["put the carrot on the plate", "stack the green block on the yellow block"]
    return model.processor(Observations({"ego": images, "cam_right_wrist": images}, sentences))


def edit(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Change one tensor of a sharded folder, the index too."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = folder / index["weight_map"].get(name, next(iter(index["weight_map"].values())))
    tensors = load_file(file)
    if tensor is None:
        del tensors[name], index["weight_map"][name]
    else:
        tensors[name] = tensor
        index["weight_map"][name] = file.name
    save_file(tensors, file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_the_numbers_are_those_of_plain_transformers(
    folder: Path, plain: Qwen3_5ForConditionalGeneration
) -> None:
    model = model_of(folder).eval()
    inputs = sees(model)
    with torch.no_grad():
        ours = hidden_states(model.backbone, inputs)
        theirs = plain.model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            position_ids=inputs["position_ids"].transpose(0, 1),
            mm_token_type_ids=inputs["mm_token_type_ids"],
            pixel_values=inputs["pixel_values"].flatten(0, 1),
            image_grid_thw=inputs["image_grid_thw"].flatten(0, 1),
        ).last_hidden_state
    seen = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours[seen], theirs[seen], rtol=1e-4, atol=1e-4)


def test_view_tags_stand_on_free_rows_of_the_vocabulary(
    folder: Path, plain: Qwen3_5ForConditionalGeneration
) -> None:
    tokenizer = load_pretrained(str(folder)).tokenizer
    tags = [token for token in special_tokens() if token not in CONTROL_TOKENS]
    ids = [token_id(tokenizer, tag) for tag in tags]
    used = set(plain_tokenizer().get_vocab().values())
    assert len(set(ids)) == len(tags)
    assert not used & set(ids)
    assert max(ids) < plain.config.text_config.vocab_size


def test_a_whole_model_made_of_it_survives_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    model = model_of(folder)
    model.save_pretrained(tmp_path / "whole", shard_bytes=2_000_000)
    again = QwenVLA.from_pretrained(tmp_path / "whole")
    inputs = sees(model)
    assert torch.equal(inputs["input_ids"], sees(again)["input_ids"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert torch.equal(model.encode(inputs)["hidden"], again.encode(inputs)["hidden"])


def test_the_number_format_is_the_checkpoints_or_as_asked(folder: Path) -> None:
    load = load_pretrained(str(folder), torch.bfloat16)
    assert {p.dtype for p in load.backbone.parameters()} == {torch.bfloat16}
    load.backbone.save_pretrained(folder)
    assert {p.dtype for p in load_pretrained(str(folder)).backbone.parameters()} == {torch.bfloat16}


NORM = "model.language_model.norm.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        (NORM, None, f"missing {NORM}"),
        ("model.extra.weight", torch.zeros(3), r"unknown model\.extra\.weight"),
        (NORM, torch.zeros(3), rf"{NORM} is \(3,\), config.json says \(128,\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    folder: Path, name: str, tensor: torch.Tensor | None, words: str
) -> None:
    edit(folder, name, tensor)
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(str(folder))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"model_type": "qwen3_vl"}, "model_type is 'qwen3_vl'"),
        ("config.json", {"image_token_id": 7}, "image_token_id is 7"),
        ("preprocessor_config.json", {"patch_size": 14}, "patch_size is 14"),
        ("preprocessor_config.json", {"merge_size": None}, "merge_size"),
    ],
)
def test_settings_that_disagree_are_named(
    folder: Path, file: str, change: dict[str, Any], words: str
) -> None:
    values = json.loads((folder / file).read_text()) | change
    kept = {key: value for key, value in values.items() if value is not None}
    (folder / file).write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(str(folder))


@pytest.mark.parametrize(
    "file", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors.index"]
)
def test_a_missing_file_is_an_error(folder: Path, file: str) -> None:
    for path in folder.glob(f"{file}*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=str(folder)):
        load_pretrained(str(folder))


def test_a_vocabulary_without_room_is_refused(tmp_path: Path) -> None:
    tokenizer = plain_tokenizer()
    config = small_config(tokenizer, vocab_size=len(tokenizer) + 2)
    Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    Qwen2VLImageProcessorPil(patch_size=16).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="view tags need"):
        load_pretrained(str(tmp_path))


def test_a_backbone_of_another_width_than_the_presets_is_refused(folder: Path) -> None:
    pretrained = load_pretrained(str(folder))
    contract = tabletop_contract()
    with pytest.raises(ConfigError, match="128 wide, preset qwen_vla_0_8b is made for 1024"):
        build("qwen_vla_0_8b", contract, channel_bounds_codec(contract), pretrained)
