"""Number formats, activation checkpointing and the choice of attention."""

from __future__ import annotations

import pytest
import torch
from tiny_model import INSTRUCTION, gradients, images, linear_preset, make_model, outputs

from learners.memory import Storages
from vlarl.config.schema import ModelConfig
from vlarl.errors import ConfigError
from vlarl.model import kernels
from vlarl.model.backbone import EqualImageAttention
from vlarl.model.checkpoint import load
from vlarl.model.kernels import check_attention
from vlarl.model.start import given_model
from vlarl.observations import Observations

BFLOAT16 = ModelConfig(dtype="bfloat16")


def test_matrices_are_bfloat16_and_what_is_sensitive_stays_float32(tmp_path):
    model = make_model(linear_preset(tmp_path), BFLOAT16)
    formats = {name: parameter.dtype for name, parameter in model.named_parameters()}
    kept = {name for name, dtype in formats.items() if dtype == torch.float32}
    for words in ("value_head.", "expert.action_out.", "exploration_log_std", "A_log", "q_norm"):
        assert any(words in name for name in kept), words
    large = {name for name in formats if model.get_parameter(name).numel() > 20_000}
    assert large
    assert not large & kept
    assert set(formats.values()) == {torch.float32, torch.bfloat16}
    assert all(torch.isfinite(tensor).all() for tensor in outputs(model).values())


@pytest.mark.parametrize("preset", ["tiny", "tiny-pooled"])
def test_bfloat16_is_near_float32_and_what_leaves_the_model_is_float32(preset):
    exact, rounded = outputs(make_model(preset)), outputs(make_model(preset, BFLOAT16))
    assert rounded["hidden"].dtype == torch.bfloat16
    assert rounded["velocity"].dtype == rounded["value"].dtype == torch.float32
    for name, expected in exact.items():
        error = (rounded[name].float() - expected).abs().max() / expected.abs().max()
        assert 0 < error < 0.03, name


def test_a_bfloat16_checkpoint_comes_back_bit_for_bit_and_is_half_as_large(tmp_path):
    make_model().save_pretrained(tmp_path / "float32")
    model = make_model("tiny", BFLOAT16)
    model.save_pretrained(tmp_path / "bfloat16")
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("float32", "bfloat16")]
    assert sizes[1] < 0.55 * sizes[0]
    again = given_model(ModelConfig(checkpoint=str(tmp_path / "bfloat16")))
    assert again is not None
    for name, parameter in again.named_parameters():
        assert parameter.dtype == model.get_parameter(name).dtype, name
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_loading_as_another_format_converts_one_tensor_at_a_time(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    with Storages(fake=False) as storages:
        found = load(tmp_path / "model", torch.bfloat16)
    converted = make_model("tiny", BFLOAT16)
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, converted.get_parameter(name)), name
    sizes = [parameter.nbytes for parameter in model.parameters()]
    own = sum(parameter.nbytes for parameter in found.parameters())
    assert storages.peak < own + 3 * max(sizes) < sum(sizes)


@pytest.mark.parametrize("preset", ["tiny", "tiny-pooled", "linear"])
def test_activations_computed_twice_give_the_same_gradients(preset, tmp_path):
    preset = linear_preset(tmp_path) if preset == "linear" else preset
    kept = gradients(make_model(preset))
    again = gradients(make_model(preset, ModelConfig(checkpoint_activations=True)))
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=0, msg=name)


def kept_bytes(model) -> int:
    """What autograd holds when the forward pass has ended."""
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs(model.train())
    return sum(kept)


def test_activations_computed_twice_are_not_kept():
    all_of_them = kept_bytes(make_model())
    inputs_alone = kept_bytes(make_model("tiny", ModelConfig(checkpoint_activations=True)))
    assert inputs_alone < 0.5 * all_of_them


def test_eager_attention_is_the_same_with_images_of_one_size_and_of_two():
    plain, eager = make_model(), make_model("tiny", ModelConfig(attention="eager"))
    blocks = eager.backbone.model.visual.blocks
    assert all(isinstance(block.attn, EqualImageAttention) for block in blocks)
    assert blocks[0].attn.config._attn_implementation == "eager"
    for name, expected in outputs(plain).items():
        torch.testing.assert_close(outputs(eager)[name], expected, atol=1e-5, rtol=1e-5)
    inputs = plain.processor(Observations(images(2), [INSTRUCTION] * 2))
    pixels = inputs["pixel_values"].flatten(0, 1)
    for grids in ([[1, 4, 4]] * 4, [[1, 4, 4], [1, 8, 4], [1, 4, 4]]):
        rows = torch.tensor(grids)
        found = [
            model.backbone.model.visual(pixels, grid_thw=rows).pooler_output
            for model in (plain, eager)
        ]
        torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)


def test_an_attention_that_is_not_here_is_one_error_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(kernels, "is_flash_attn_2_available", lambda: False)
    config = ModelConfig(
        checkpoint="no/such/folder", attention="flash_attention_2", dtype="bfloat16"
    )
    with pytest.raises(ConfigError, match=r"flash-attn.*model.attention=sdpa"):
        given_model(config)
    monkeypatch.setattr(kernels, "is_flash_attn_2_available", lambda: True)
    check_attention("flash_attention_2")


def test_compilation_is_of_three_modules_and_needs_a_compiler(monkeypatch):
    model = make_model("tiny", ModelConfig(compile=True))
    compiled = {n for n, m in model.named_modules() if m._compiled_call_impl is not None}
    inner = "backbone.model"
    assert compiled == {"expert", f"{inner}.visual", f"{inner}.language_model"}
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler.*model.compile=false"):
        given_model(ModelConfig(checkpoint="no/such/folder", compile=True))


def test_missing_kernels_are_said_once_and_only_of_linear_attention(tmp_path, caplog, monkeypatch):
    kernels._say.cache_clear()
    monkeypatch.setattr(kernels, "KERNELS", {"flash-linear-attention": "no_such_module"})
    make_model()
    assert not caplog.records
    for _ in range(2):
        make_model(linear_preset(tmp_path))
    (record,) = (record for record in caplog.records if record.name.startswith("vlarl"))
    assert "flash-linear-attention not installed" in record.getMessage()
    monkeypatch.setattr(kernels, "KERNELS", {"flash-linear-attention": "torch"})
    assert kernels.missing_kernels() == []
