"""QwenVLA: what may and what may not influence its outputs; agreement with transformers; sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from padding import moved_right
from tensordict import TensorDict
from torch import Tensor
from transformers import Qwen3_5ForConditionalGeneration

from vlarl.model.backbone import hidden_states, vision_layout
from vlarl.model.dit import ActionExpert
from vlarl.model.expert_config import ExpertConfig
from vlarl.model.presets import build, channel_bounds_codec, load_preset, tabletop_contract
from vlarl.model.qwen_vla import QwenVLA
from vlarl.model.value_head import ValueConfig, ValueHead
from vlarl.observations import Observations

SENTENCES = ["put the carrot on the plate", "stack the green block on the yellow block", "go"]
VARIANTS = pytest.mark.parametrize("variant", ["joint", "prefix", "pooled"])


def random_model(variant: str = "joint") -> QwenVLA:
    """A tiny model whose gates and output layers are open, unlike at the start of training."""
    torch.manual_seed(0)
    contract = tabletop_contract()
    model = build("tiny", contract, channel_bounds_codec(contract))
    model.expert_config = replace(
        model.expert_config, prefix=variant != "joint", pooled=variant == "pooled"
    )
    model.expert = ActionExpert(model.expert_config, model.config.text_config)
    for parameter in [*model.expert.parameters(), *model.value_head.parameters()]:
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def random_images(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
        for name in ("ego", "cam_right_wrist")
    }


def random_actions(model: QwenVLA, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(batch, model.codec.tensor_horizon, 64, generator=generator)
    return y, torch.rand(batch, generator=generator), model.codec.mask(batch)


def inputs_of(model: QwenVLA, batch: int = 3) -> TensorDict:
    return model.processor(Observations(random_images(batch), (SENTENCES * batch)[:batch]))


@VARIANTS
def test_padded_entries_never_matter_and_stay_zero(variant: str) -> None:
    model = random_model(variant)
    context = model.encode(inputs_of(model)).detach()
    y, tau, mask = random_actions(model, 3)
    mask[1, 5:] = False
    assert mask[0, 5:].any()
    y.requires_grad_()
    velocity = model.velocity(context, y, tau, mask)
    assert velocity.dtype == torch.float32
    assert velocity[~mask].abs().max() == 0
    assert velocity[mask].abs().min() > 0
    velocity.square().sum().backward()
    assert y.grad is not None
    assert y.grad[~mask].abs().max() == 0
    assert y.grad[mask].abs().min() > 0
    junk = torch.where(mask, y, torch.full_like(y, 1e6)).detach()
    junk[0, -1, -1] = float("nan")
    assert torch.equal(model.velocity(context, junk, tau, mask), velocity)


@VARIANTS
def test_padded_tokens_never_matter(variant: str) -> None:
    model = random_model(variant)
    inputs = inputs_of(model)
    y, tau, mask = random_actions(model, 3)
    context = model.encode(inputs).detach()
    velocity, value = model.velocity(context, y, tau, mask), model.value(context)
    padded = inputs["attention_mask"] == 0
    assert padded.any()
    other = inputs.clone()
    other["input_ids"][padded] = 7
    again = model.encode(other).detach()
    assert torch.equal(again["hidden"], context["hidden"])
    junk = context.clone()
    junk["hidden"][padded] = 1e3
    torch.testing.assert_close(model.velocity(junk, y, tau, mask), velocity, atol=0, rtol=0)
    torch.testing.assert_close(model.value(junk), value, atol=0, rtol=0)


@VARIANTS
def test_left_and_right_padding_agree(variant: str) -> None:
    model = random_model(variant)
    inputs = model.processor(Observations(random_images(2), SENTENCES[::2]))
    y, tau, mask = random_actions(model, 2)
    right = model.encode(inputs).detach()
    left = model.encode(moved_right(inputs, 3)).detach()
    torch.testing.assert_close(
        left["hidden"].roll(-3, dims=1), right["hidden"], atol=2e-6, rtol=1e-5
    )
    torch.testing.assert_close(
        model.velocity(left, y, tau, mask),
        model.velocity(right, y, tau, mask),
        atol=2e-6,
        rtol=1e-5,
    )
    torch.testing.assert_close(model.value(left), model.value(right), atol=2e-6, rtol=1e-5)


@VARIANTS
def test_other_samples_never_matter(variant: str) -> None:
    model = random_model(variant)
    inputs = inputs_of(model)
    y, tau, mask = random_actions(model, 3)
    context = model.encode(inputs)
    velocity = model.velocity(context, y, tau, mask)
    for row in range(3):
        alone = model.encode(inputs[row : row + 1])
        single = model.velocity(alone, y[row : row + 1], tau[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(single[0], velocity[row], atol=5e-6, rtol=1e-4)
        torch.testing.assert_close(model.value(alone)[0], model.value(context)[row])
    pixels = inputs["pixel_values"].requires_grad_()
    model.velocity(model.encode(inputs), y, tau, mask)[1].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad[[0, 2]].abs().max() == 0
    assert pixels.grad[1].abs().max() > 0


@VARIANTS
def test_repeats_share_a_context(variant: str) -> None:
    model = random_model(variant)
    context = model.encode(inputs_of(model)).detach()
    y, tau, mask = random_actions(model, 6)
    shared = model.velocity(context, y, tau, mask)
    spread = TensorDict(
        {key: value.repeat_interleave(2, dim=0) for key, value in context.items()}, batch_size=[6]
    )
    torch.testing.assert_close(shared, model.velocity(spread, y, tau, mask), atol=5e-6, rtol=1e-4)


@VARIANTS
def test_a_prepared_context_gives_the_same_velocity(variant: str) -> None:
    model = random_model(variant)
    context = model.encode(inputs_of(model)).detach()
    prepared = model.prepare(context)
    assert (prepared.get("shared") is not None) == (variant != "joint")
    assert context.get("shared") is None
    for seed in range(2):
        y, tau, mask = random_actions(model, 3 * (seed + 1))
        torch.testing.assert_close(
            model.velocity(prepared, y, tau, mask), model.velocity(context, y, tau, mask)
        )


@VARIANTS
def test_actions_see_each_other_the_context_and_time(variant: str) -> None:
    model = random_model(variant)
    context = model.encode(inputs_of(model, 1)).detach()
    context["hidden"].requires_grad_()
    y, tau, mask = random_actions(model, 1)
    y.requires_grad_()
    tau.requires_grad_()
    velocity = model.velocity(context, y, tau, mask)
    first = torch.autograd.grad(velocity[0, 0].sum(), y, retain_graph=True)[0]
    last = torch.autograd.grad(velocity[0, -1].sum(), y, retain_graph=True)[0]
    assert first[0, -1, :5].abs().min() > 0
    assert last[0, 0, :5].abs().min() > 0
    hidden, time = torch.autograd.grad(velocity.sum(), [context["hidden"], tau])
    assert (hidden[context["mask"]].abs().sum(dim=-1) > 0).all()
    assert hidden[~context["mask"]].abs().max() == 0
    assert time.abs() > 0


@VARIANTS
def test_order_of_actions_matters(variant: str) -> None:
    model = random_model(variant)
    context = model.encode(inputs_of(model, 1)).detach()
    y, tau, mask = random_actions(model, 1)
    flipped = model.velocity(context, y.flip(1), tau, mask).flip(1)
    assert (flipped - model.velocity(context, y, tau, mask)).abs().max() > 1e-4


def test_fresh_expert_is_silent_but_learns() -> None:
    contract = tabletop_contract()
    torch.manual_seed(0)
    model = build("tiny", contract, channel_bounds_codec(contract))
    context = model.encode(inputs_of(model)).detach()
    y, tau, mask = random_actions(model, 3)
    velocity = model.velocity(context, y, tau, mask)
    assert velocity.abs().max() == 0
    assert model.value(context).abs().max() == 0
    (velocity - y)[mask].square().mean().backward()
    assert model.expert.action_out[-1].weight.grad.abs().max() > 0


def test_value_gives_no_gradient_to_the_backbone_and_the_policy_does() -> None:
    model = random_model()
    context = model.encode(inputs_of(model))
    model.value(context).sum().backward()
    parts = model.parts()
    assert all(
        parameter.grad is None
        for name in ("vision", "language", "expert")
        for parameter in parts[name]
    )
    assert all(parameter.grad is not None for parameter in parts["value"])
    y, tau, mask = random_actions(model, 3)
    model.velocity(context, y, tau, mask).square().sum().backward()
    for name in ("vision", "language"):
        assert sum(float(p.grad.abs().sum()) for p in parts[name] if p.grad is not None) > 0


def test_every_parameter_is_in_exactly_one_part() -> None:
    model = random_model()
    listed = [id(parameter) for part in model.parts().values() for parameter in part]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in model.parameters()}
    assert list(model.parts()) == ["vision", "language", "expert", "expert_biases", "value"]


def test_backbone_equals_plain_transformers() -> None:
    model = random_model()
    plain = Qwen3_5ForConditionalGeneration(model.config)
    plain.load_state_dict(model.backbone.state_dict())
    inputs = inputs_of(model)
    expected = plain.model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        position_ids=inputs["position_ids"].transpose(0, 1),
        mm_token_type_ids=inputs["mm_token_type_ids"],
        pixel_values=inputs["pixel_values"].flatten(0, 1),
        image_grid_thw=inputs["image_grid_thw"].flatten(0, 1),
    ).last_hidden_state
    ours = hidden_states(model.backbone, inputs)
    used = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours[used], expected[used], atol=1e-5, rtol=1e-4)
    assert ours[~used].abs().max() == 0


def test_images_of_unequal_size_equal_plain_transformers() -> None:
    model = random_model()
    plain = Qwen3_5ForConditionalGeneration(model.config)
    plain.load_state_dict(model.backbone.state_dict())
    grids = torch.tensor([[1, 4, 4], [1, 2, 6]])
    patches = torch.randn(28, 1536, generator=torch.Generator().manual_seed(0))
    ours = model.backbone.model.visual(patches, **vision_layout(model.backbone, grids))
    expected = plain.model.visual(patches, grid_thw=grids)
    torch.testing.assert_close(ours.pooler_output, expected.pooler_output, atol=1e-5, rtol=1e-4)


def test_language_loss_is_that_of_the_supervised_tokens() -> None:
    model = random_model()
    inputs = model.processor.question(
        random_images(2), ["Where is the carrot?", "Where is the plate?"], ["12 40", "7 9"]
    )
    logits = model.language_logits(inputs)
    assert logits.shape == (2, model.contract.prompt_tokens, model.config.text_config.vocab_size)
    expected = model.backbone.loss_function(
        logits=logits, labels=inputs["labels"], vocab_size=logits.shape[-1]
    )
    torch.testing.assert_close(model.language_loss(inputs), expected)


def test_context_can_be_indexed_and_stored() -> None:
    model = random_model()
    context = model.encode(inputs_of(model)).detach()
    y, tau, mask = random_actions(model, 3)
    order = torch.tensor([2, 0, 1])
    stacked = torch.stack([context[int(row)] for row in order])
    torch.testing.assert_close(
        model.velocity(stacked, y[order], tau[order], mask),
        model.velocity(context, y, tau, mask)[order],
        atol=5e-6,
        rtol=1e-4,
    )


def test_an_expert_of_another_head_size_than_the_backbones_is_refused() -> None:
    expert = ExpertConfig(**load_preset("qwen_vla_4b").expert)
    with pytest.raises(ValueError, match="rotary"):
        ActionExpert(expert, random_model().config.text_config)


def test_value_depends_on_the_share_of_the_episode_that_has_passed() -> None:
    model = random_model()
    early = model.encode(inputs_of(model))
    late = early.copy().set("elapsed", torch.ones(3))
    assert not early["elapsed"].any()
    assert ((model.value(early) - model.value(late)).abs() > 1e-4).all()


def test_the_linear_value_head_is_one_linear_map_of_the_mean() -> None:
    head = ValueHead(ValueConfig(), 8)
    assert sum(parameter.numel() for parameter in head.parameters()) == 9
    torch.nn.init.normal_(head.out.weight)
    first, second = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    time = torch.rand(4)
    torch.testing.assert_close(head(first + second, time), head(first, time) + head(second, time))


def test_pooled_without_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix"):
        ExpertConfig(width=8, blocks=1, heads=1, head_dim=8, pooled=True)
