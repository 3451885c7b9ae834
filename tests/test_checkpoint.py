"""Checkpoint folder: bit-equal round trip, every defect an error that names it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from vlarl.errors import CheckpointError
from vlarl.model.checkpoint import saved_tensors
from vlarl.model.presets import build, channel_bounds_codec, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA

FILES = [
    "action_stats.json",
    "config.json",
    "contract.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def random_model(seed: int = 0) -> QwenVLA:
    torch.manual_seed(seed)
    contract = tabletop_contract()
    model = build("tiny", contract, channel_bounds_codec(contract))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_tensors(folder: Path, edit: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in edit.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


def test_round_trip_is_bit_equal(folder: Path) -> None:
    model = random_model()
    state = torch.get_rng_state()
    again = QwenVLA.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)
    expected = model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert again.contract == model.contract
    assert again.expert_config == model.expert_config
    assert again.processor.layout == model.processor.layout
    assert again.codec.stats.to_dict() == model.codec.stats.to_dict()
    assert again.config.to_dict() == model.config.to_dict()
    embedding = again.backbone.get_input_embeddings().weight
    assert again.backbone.lm_head.weight is embedding


def test_folder_holds_the_documented_files_and_nothing_stays_beside_it(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    random_model(1).save_pretrained(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    changed = QwenVLA.from_pretrained(folder)
    assert torch.equal(changed.value_head.out.weight, random_model(1).value_head.out.weight)


def test_tokenizer_loads_as_transformers_users_expect(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer.encode("<|cam_left_wrist_end|>")) == 1


def test_missing_value_head_starts_at_zero_with_one_notice(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [name for name in saved_tensors(random_model(0)) if name.startswith("value_head.")]
    edit_tensors(folder, dict.fromkeys(names))
    with caplog.at_level(logging.WARNING, logger="vlarl"):
        model = QwenVLA.from_pretrained(folder)
    assert model.value_head.out.weight.abs().sum() == 0
    assert [record.levelname for record in caplog.records if record.name.startswith("vlarl")] == [
        "WARNING"
    ]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"expert.context_in.weight": None}, "missing expert.context_in.weight"),
        ({"value_head.out.bias": None}, "missing value_head.out.bias"),
        ({"expert.extra": torch.zeros(2)}, "unknown expert.extra"),
        ({"expert.context_in.bias": torch.zeros(7)}, r"expert.context_in.bias is \(7,\)"),
    ],
)
def test_tensors_must_match(folder: Path, edit: dict[str, torch.Tensor | None], words: str) -> None:
    edit_tensors(folder, edit)
    with pytest.raises(CheckpointError, match=words):
        QwenVLA.from_pretrained(folder)


@pytest.mark.parametrize("name", FILES)
def test_truncated_or_missing_file_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        QwenVLA.from_pretrained(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing"):
        QwenVLA.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("config.json", "model_type", "llama", "model_type is 'llama'"),
        ("config.json", "expert", {"width": 1}, r"config.json: expert: .*missing"),
        ("config.json", "value", None, r"config.json: value is None; needed are the sections"),
        ("config.json", "backbone", {"text_config": []}, r"config.json: .*text_config"),
        ("contract.json", "tensor_channels", 32, "tensor_channels is 32, .*Set.* to 64"),
        ("contract.json", "tensor_horizon", 16, "tensor_horizon is 16, .*Set.* to 8"),
        ("contract.json", "embodiment", [], r"contract.json: "),
        ("action_stats.json", "low", "a", r"action_stats.json: "),
        ("preprocessor_config.json", "patch_size", 0, r"preprocessor_config.json: "),
        ("contract.json", "horizon", 99, "horizon 99"),
        ("action_stats.json", "low", [9.0] * 5, "exceeds"),
        ("preprocessor_config.json", "crop", 1, "crop"),
    ],
)
def test_settings_must_make_sense(
    folder: Path, name: str, key: str, value: object, words: str
) -> None:
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**values, key: value}))
    with pytest.raises(CheckpointError, match=words):
        QwenVLA.from_pretrained(folder)


def test_unknown_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        QwenVLA.from_pretrained(tmp_path / "nothing")


def test_a_large_model_is_written_in_shards_and_read_back_bit_equal(tmp_path: Path) -> None:
    model = random_model()
    model.save_pretrained(tmp_path / "model", shard_bytes=2_000_000)
    shards = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(path.stat().st_size < 2_100_000 for path in shards)
    again = QwenVLA.from_pretrained(tmp_path / "model").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again[name]), name


def test_a_lost_or_foreign_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    random_model().save_pretrained(folder, shard_bytes=2_000_000)
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match=rf"index.json and {second.name} disagree about"):
        QwenVLA.from_pretrained(folder)
    second.unlink()
    with pytest.raises(CheckpointError, match=rf"{second.name} is missing"):
        QwenVLA.from_pretrained(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"index\.json is damaged"):
        QwenVLA.from_pretrained(folder)


def test_a_checkpoint_keeps_its_number_format(tmp_path: Path) -> None:
    model = random_model()
    model.backbone.bfloat16()
    model.save_pretrained(tmp_path / "model")
    again = QwenVLA.from_pretrained(tmp_path / "model")
    assert {p.dtype for p in again.backbone.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in again.expert.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_a_file_that_holds_no_object_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("[1]")
    with pytest.raises(CheckpointError, match=rf"{name} is damaged: not an object but \[1\]"):
        QwenVLA.from_pretrained(folder)


@pytest.mark.parametrize("key", ["backbone", "expert", "value"])
def test_a_missing_section_is_named_with_its_file(folder: Path, key: str) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values[key]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"config.json: {key} is missing"):
        QwenVLA.from_pretrained(folder)


def test_statistics_must_be_of_the_contracts_channels(folder: Path) -> None:
    (folder / "action_stats.json").write_text('{"low": [0, 0], "high": [1, 1]}')
    with pytest.raises(CheckpointError, match=r"action_stats.json: .*2 channels, .* has 5"):
        QwenVLA.from_pretrained(folder)
