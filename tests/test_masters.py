"""Float32 masters of bfloat16 weights: what is too small for a weight is not lost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from learners import masters
from learners.masters import MasteredOptimizer
from learners.optimizer import build_optimizer, clip_gradients
from vlarl.config.schema import OptimizerConfig

CONFIG = OptimizerConfig(learning_rates={"expert": 1e-4}, final_fraction=1.0)


def make_parts(dtype: torch.dtype = torch.bfloat16) -> dict[str, list[nn.Parameter]]:
    """Matrices below float32 beside a float32 vector."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((8, 6), (5, 8), (7,))
    drawn = [nn.Parameter(1 + torch.rand(size, generator=generator)) for size in sizes]
    for matrix in drawn[:2]:
        matrix.data = matrix.data.to(dtype)
    return {"expert": drawn}


def train(optimizer, scheduler, parts, steps, seed=0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        for parameter in parts["expert"]:
            gradient = 1 + 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        scheduler.step()


def test_updates_too_small_for_bfloat16_add_up_in_the_master_and_then_move_the_weight():
    parts = make_parts()
    plain = [nn.Parameter(p.detach().clone()) for p in parts["expert"][:2]]
    before = [p.detach().clone() for p in plain]
    optimizer, scheduler = build_optimizer(parts, CONFIG, 200)
    assert isinstance(optimizer, MasteredOptimizer)
    train(optimizer, scheduler, parts, 3)
    for weight, master, start in zip(parts["expert"], optimizer.masters, before, strict=False):
        assert torch.equal(weight, start)
        assert (master < start.float()).all()
    train(optimizer, scheduler, parts, 150)
    swallowed = torch.optim.AdamW(plain, lr=1e-4, weight_decay=0.0)
    for _ in range(153):
        for parameter in plain:
            parameter.grad = torch.ones_like(parameter)
        swallowed.step()
    for weight, master, unmoved, start in zip(
        parts["expert"], optimizer.masters, plain, before, strict=False
    ):
        assert torch.equal(unmoved, start)
        assert (weight < start).all()
        assert torch.equal(weight, master.to(weight.dtype))


def test_stopping_and_resuming_equals_never_stopping_bit_for_bit(tmp_path):
    whole = make_parts()
    optimizer, scheduler = build_optimizer(whole, CONFIG, 40)
    train(optimizer, scheduler, whole, 20, seed=1)
    stored = {
        "weights": [p.detach() for p in whole["expert"]],
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(stored, tmp_path / "state.pt")
    train(optimizer, scheduler, whole, 20, seed=2)

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = {"expert": [nn.Parameter(weight) for weight in state["weights"]]}
    again, schedule = build_optimizer(resumed, CONFIG, 40)
    again.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["scheduler"])
    train(again, schedule, resumed, 20, seed=2)
    for found, expected in zip(resumed["expert"], whole["expert"], strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(again.masters, optimizer.masters, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("numbers", [1, 50])
def test_portions_of_a_step_give_the_same_as_one(monkeypatch, numbers):
    whole, portioned = make_parts(), make_parts()
    train(*build_optimizer(whole, CONFIG, 10), whole, 4)
    monkeypatch.setattr(masters, "_PORTION", numbers)
    train(*build_optimizer(portioned, CONFIG, 10), portioned, 4)
    for found, expected in zip(portioned["expert"], whole["expert"], strict=True):
        assert torch.equal(found, expected)


def test_only_weights_with_gradients_step_and_gradients_stay_until_cleared():
    parts = make_parts()
    optimizer, _ = build_optimizer(parts, CONFIG, 10)
    first, second, vector = parts["expert"]
    first.grad, vector.grad = torch.ones_like(first), torch.ones_like(vector)
    before = [master.clone() for master in optimizer.masters]
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(optimizer.masters, before, strict=True)]
    assert moved == [True, False]
    assert first.grad is not None
    assert second.grad is None
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in parts["expert"])


def test_float32_weights_need_no_masters():
    optimizer, _ = build_optimizer(make_parts(torch.float32), CONFIG, 10)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_the_norm_of_bfloat16_gradients_is_taken_in_float32():
    parts = {"expert": [nn.Parameter(torch.ones(1000, 10, dtype=torch.bfloat16))]}
    (weight,) = parts["expert"]
    weight.grad = torch.full_like(weight, 0.0301)
    expected = float(weight.grad.double().norm())
    assert clip_gradients(parts, 1.0)["total"] == pytest.approx(expected, rel=1e-5)
    assert float(weight.grad.double().norm()) == pytest.approx(1.0, rel=5e-3)


def test_an_offloaded_optimizer_takes_the_very_steps_of_any_other_and_saves_the_same():
    plain, offloaded = make_parts(torch.float32), make_parts(torch.float32)
    own = build_optimizer(plain, CONFIG, 20)
    aside = build_optimizer(offloaded, CONFIG, 20, offload=True)
    assert isinstance(aside[0], MasteredOptimizer)
    train(*own, plain, 4)
    train(*aside, offloaded, 4)
    for one, other, master in zip(
        plain["expert"], offloaded["expert"], aside[0].masters, strict=True
    ):
        assert torch.equal(one, other)
        # On the CPU here as there, but not the same memory.
        assert master.data_ptr() != other.data_ptr()
    # Either goes on from what the other left.
    states = own[0].state_dict(), aside[0].state_dict()
    assert states[0].keys() == states[1].keys()
    own[0].load_state_dict(states[1])
    aside[0].load_state_dict(states[0])
    train(*own, plain, 2, seed=1)
    train(*aside, offloaded, 2, seed=1)
    for one, other in zip(plain["expert"], offloaded["expert"], strict=True):
        assert torch.equal(one, other)
