"""Rows that see different cameras in one batch: padding changes no number."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from two_robots import observed, two_robots

from vlarl.mixed_rows import encode_rows, joined, padded_alike

ORDER = torch.tensor([2, 0, 4, 1, 3])
"""Rows of the arm (0 to 2) and of the agent (3, 4), mixed."""


@pytest.fixture(scope="module")
def model():
    return two_robots()


@pytest.fixture(scope="module")
def inputs(model):
    return [model.processor(observed(0, 3)), model.processor(observed(1, 2))]


def answers(model, context):
    """Velocity and value of fixed chunks."""
    masks = [codec.mask(1)[0] for codec in (model.codec, *model.further_codecs)]
    mask = torch.stack([masks[place] for place in context["embodiment"].tolist()])
    y = torch.randn(mask.shape[1:], generator=torch.Generator().manual_seed(1)).expand(mask.shape)
    tau = torch.full((len(mask),), 0.4)
    return model.velocity(context, y, tau, mask), model.value(context)


@torch.no_grad()
def test_padded_tokens_of_a_context_change_no_number(model, inputs):
    contexts = [model.encode(each) for each in inputs]
    lengths = [context["hidden"].shape[1] for context in contexts]
    assert lengths[0] > lengths[1], "the arm sees a camera more"
    both = torch.cat(padded_alike(contexts))
    assert both["hidden"].shape[1] == lengths[0]
    assert torch.equal(both["mask"][3:].sum(1), contexts[1]["mask"].sum(1))
    velocity, value = answers(model, both)
    alone = [answers(model, context) for context in contexts]
    assert velocity.abs().max() > 0.1
    torch.testing.assert_close(velocity, torch.cat([v for v, _ in alone]), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(value, torch.cat([v for _, v in alone]), atol=1e-6, rtol=1e-5)
    # And what stands in the padding does not matter.
    spoiled = both.clone()
    spoiled["hidden"][3:, lengths[1] :] = 7.0
    spoiled["position_ids"][3:, :, lengths[1] :] = 5
    again, same_value = answers(model, spoiled)
    torch.testing.assert_close(again, velocity, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(same_value, value)


@torch.no_grad()
def test_inputs_of_different_cameras_are_encoded_as_by_themselves(model, inputs):
    both = torch.cat(padded_alike(inputs))[ORDER]
    assert both["pixel_values"].shape[1] == inputs[0]["pixel_values"].shape[1]
    found = encode_rows(model, both)
    expected = torch.cat(padded_alike([model.encode(each) for each in inputs]))[ORDER]
    assert torch.equal(found["mask"], expected["mask"])
    assert torch.equal(found["embodiment"], expected["embodiment"])
    torch.testing.assert_close(found["hidden"], expected["hidden"], atol=5e-6, rtol=1e-4)
    # Rows of one robot alone, as a micro-batch may hold them, still padded for the other.
    agent = encode_rows(model, torch.cat(padded_alike(inputs))[3:])
    torch.testing.assert_close(agent["hidden"], expected["hidden"][ORDER.argsort()][3:],
                               atol=5e-6, rtol=1e-4)  # fmt: skip


def test_gradients_reach_the_backbone_through_rows_of_both_robots(model, inputs):
    context = encode_rows(model, torch.cat(padded_alike(inputs))[ORDER])
    context["hidden"].square().sum().backward()
    found = model.backbone.model.visual.blocks[0].attn.qkv.weight.grad.clone()
    model.zero_grad()
    apart = sum(model.encode(each)["hidden"].square().sum() for each in inputs)
    apart.backward()
    expected = model.backbone.model.visual.blocks[0].attn.qkv.weight.grad
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    model.zero_grad()


@torch.no_grad()
def test_rows_that_are_alike_stay_as_they_are(model, inputs):
    assert torch.equal(encode_rows(model, inputs[0])["hidden"], model.encode(inputs[0])["hidden"])
    (same, other) = padded_alike([inputs[0], inputs[0]])
    for key, tensor in inputs[0].items():
        assert same[key] is tensor
        assert other[key] is tensor


def test_joined_batches_keep_their_rows_and_the_parts_their_own_size():
    parts = [
        TensorDict(
            {
                "stream": torch.full((n,), n),
                "context": TensorDict({"hidden": torch.full((n, tokens, 2), n)}, batch_size=[n]),
            },
            batch_size=[n],
        )
        for n, tokens in ((2, 3), (1, 5))
    ]
    batch = joined(parts)
    assert batch["stream"].tolist() == [2, 2, 1]
    assert batch["context", "hidden"].sum(dim=(1, 2)).tolist() == [12, 12, 10]
    assert batch["context", "hidden"].shape == (3, 5, 2)
    assert parts[0]["context", "hidden"].shape == (2, 3, 2)
