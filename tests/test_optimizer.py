"""The optimizer: which parts move, at which rate, and what clipping leaves."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from learners.muon import linear_weights, orthogonalized
from learners.optimizer import build_optimizer, clip_gradients, rate_of
from vlarl.config.schema import OptimizerConfig
from vlarl.errors import ConfigError


def make_parts() -> dict[str, list[nn.Parameter]]:
    torch.manual_seed(0)
    names = ("vision", "language", "expert", "value")
    return {name: list(nn.Linear(3, 2).parameters()) for name in names}


def set_gradients(parts: dict[str, list[nn.Parameter]], scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameters in parts.values():
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def test_only_parts_with_a_rate_move():
    parts = make_parts()
    config = OptimizerConfig(learning_rates={"expert": 1e-2, "value": 1e-1}, weight_decay=0.1)
    optimizer, scheduler = build_optimizer(parts, config, 10)
    before = {name: [p.detach().clone() for p in members] for name, members in parts.items()}
    set_gradients(parts)
    optimizer.step()
    scheduler.step()
    for name, members in parts.items():
        moved = [not torch.equal(p, q) for p, q in zip(members, before[name], strict=True)]
        assert all(moved) if name in config.learning_rates else not any(moved)
        assert all(p.requires_grad == (name in config.learning_rates) for p in members)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"expert": 0.5}, (0.5, 0.5)),
        ({"expert_biases": 0.25}, (None, 0.25)),
        ({"expert": 0.5, "expert_biases": 0.25}, (0.5, 0.25)),
        ({"value": 0.5}, (None, None)),
    ],
)
def test_biases_follow_their_part_unless_they_have_a_rate_of_their_own(rates, expected):
    parts = make_parts()
    parts["expert_biases"] = [parts["expert"].pop()]
    config = OptimizerConfig(learning_rates=rates)
    optimizer, _ = build_optimizer(parts, config, 10)
    found = {group["part"]: group["lr"] for group in optimizer.param_groups}
    assert (found.get("expert"), found.get("expert_biases")) == expected
    assert (rate_of("expert", config), rate_of("expert_biases", config)) == expected
    for part, rate in zip(("expert", "expert_biases"), expected, strict=True):
        assert all(p.requires_grad == (rate is not None) for p in parts[part])


def test_biases_are_not_decayed_and_weights_are():
    parts = make_parts()
    config = OptimizerConfig(learning_rates={"expert": 1e-2}, weight_decay=0.5)
    optimizer, _ = build_optimizer(parts, config, 10)
    weight, bias = parts["expert"]
    before = weight.detach().clone(), bias.detach().clone()
    weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
    optimizer.step()
    assert weight.norm() < before[0].norm()
    assert torch.equal(bias, before[1])


def test_rate_warms_up_peaks_and_ends_at_the_final_fraction():
    parts = make_parts()
    config = OptimizerConfig(
        learning_rates={"expert": 1e-3, "value": 1e-2}, warmup_steps=5, final_fraction=0.1
    )
    optimizer, scheduler = build_optimizer(parts, config, 50)
    rates: dict[str, list[float]] = {"expert": [], "value": []}
    for _ in range(51):
        for group in optimizer.param_groups:
            rates[group["part"]].append(group["lr"])
        optimizer.step()
        scheduler.step()
    expert = rates["expert"][::2]
    assert 0 < expert[0] < expert[4] < max(expert)
    assert max(expert) == pytest.approx(1e-3) == expert[5]
    assert expert[-1] == pytest.approx(1e-4)
    assert all(a >= b for a, b in pairwise(expert[5:]))
    assert rates["value"][::2] == pytest.approx([10 * rate for rate in expert])


def test_clipping_bounds_the_total_and_keeps_the_direction():
    parts = make_parts()
    set_gradients(parts, 100.0)
    before = torch.cat([p.grad.flatten() for members in parts.values() for p in members])
    norms = clip_gradients(parts, 1.0)
    after = torch.cat([p.grad.flatten() for members in parts.values() for p in members])
    assert norms["total"] == pytest.approx(float(before.norm()))
    assert float(after.norm()) == pytest.approx(1.0)
    assert torch.allclose(after / after.norm(), before / before.norm())
    again = clip_gradients(parts, 5.0)
    assert again["total"] == pytest.approx(1.0)
    assert set(again) == {*parts, "total"}


@pytest.mark.parametrize("rates", [{"wings": 1e-3}, {"expert": 0.0}, {}])
def test_bad_rates_are_refused(rates):
    with pytest.raises(ConfigError, match="learning_rates") as caught:
        build_optimizer(make_parts(), OptimizerConfig(learning_rates=rates), 10)
    if "wings" in rates:
        assert "wings" in str(caught.value)
        assert "expert" in str(caught.value)


def test_orthogonalized_keeps_directions_and_evens_out_their_lengths():
    torch.manual_seed(0)
    for shape in ((24, 24), (40, 12), (12, 40)):
        left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        lengths = torch.logspace(0, -1.5, min(shape))
        turned = left.T @ orthogonalized(left * lengths @ right) @ right.T
        even = turned.diagonal()
        assert even.min() > 0.15
        assert even.max() < 2
        assert (turned - torch.diag(even)).abs().max() < 1e-4


def test_muon_turns_the_chosen_matrices_and_leaves_the_rest_to_adamw():
    config = OptimizerConfig(learning_rates={"expert": 1e-2, "value": 1e-2})
    moved = []
    for choose in (False, True):
        parts = make_parts()
        chosen = {parts["expert"][0]} if choose else set()
        optimizer, _ = build_optimizer(parts, config, 10, orthogonal=chosen)
        before = {name: [p.detach().clone() for p in members] for name, members in parts.items()}
        set_gradients(parts)
        gradient = parts["expert"][0].grad.clone()
        optimizer.step()
        assert torch.equal(parts["expert"][0].grad, gradient)
        moved.append(
            {n: [p.detach() - q for p, q in zip(parts[n], before[n], strict=True)] for n in parts}
        )
    adamw, muon = moved
    assert torch.equal(adamw["value"][0], muon["value"][0])
    assert torch.equal(adamw["expert"][1], muon["expert"][1])
    step = muon["expert"][0]
    assert not torch.allclose(step, adamw["expert"][0])
    lengths = torch.linalg.svdvals(step)
    assert lengths.max() < 10 * lengths.min()
    assert (step * gradient).sum() < 0


def test_linear_weights_are_neither_embeddings_nor_norms():
    linear = nn.Linear(4, 3)
    module = nn.Sequential(nn.Embedding(5, 4), linear, nn.LayerNorm(3))
    assert linear_weights(module) == {linear.weight}
