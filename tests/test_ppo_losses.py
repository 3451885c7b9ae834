"""The losses of PPO: what has gradient, what has none, and what is measured."""

import pytest
import torch

from vlarl.ppo import (
    approximate_kl,
    behavior_weight,
    clipped_surrogate,
    clipped_value_loss,
    decoupled_surrogate,
    explained_variance,
)


def gradient(change, advantage, epsilon=0.2):
    log_prob = torch.tensor([change], requires_grad=True)
    loss, _ = clipped_surrogate(log_prob, torch.zeros(1), torch.tensor([advantage]), epsilon)
    loss.backward()
    return float(log_prob.grad)


def test_at_the_old_policy_the_gradient_is_the_policy_gradients():
    for advantage in (-2.0, 3.0):
        assert gradient(0.0, advantage) == -advantage


def test_out_of_range_only_the_way_back_has_gradient():
    assert gradient(0.3, 1.0) == 0
    assert gradient(-0.3, -1.0) == 0
    assert gradient(0.3, -1.0) > 0
    assert gradient(-0.3, 1.0) < 0
    assert gradient(0.1, 1.0) < 0


def test_an_unchanged_policy_measures_ratio_1_and_nothing_else():
    log_prob = torch.randn(9, generator=torch.Generator().manual_seed(0)) * 50
    _, stats = clipped_surrogate(log_prob, log_prob, torch.ones(9), 0.2)
    assert stats["ratio"].tolist() == [1.0] * 9
    assert not stats["kl"].any()
    assert not stats["clipped"].any()


def test_clipped_counts_both_sides():
    log_prob = torch.log(torch.tensor([0.7, 0.85, 1.15, 1.3]))
    _, stats = clipped_surrogate(log_prob, torch.zeros(4), torch.ones(4), 0.2)
    assert stats["clipped"].tolist() == [True, False, False, True]


def test_approximate_kl_agrees_with_the_exact_one_of_two_gaussians():
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.2, 0.9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = old.sample((200_000,))
    estimate = approximate_kl(new.log_prob(x), old.log_prob(x))
    assert (estimate >= 0).all()
    exact = torch.distributions.kl_divergence(old, new)
    assert float(estimate.mean()) == pytest.approx(float(exact), rel=0.03)


def value_gradient(value, old, target, clip=0.2):
    value = torch.tensor([value], requires_grad=True)
    clipped_value_loss(value, torch.tensor([old]), torch.tensor([target]), clip).backward()
    return float(value.grad)


def test_a_value_has_gradient_until_it_moved_by_the_clip():
    assert value_gradient(0.1, 0.0, 1.0) < 0
    assert value_gradient(0.3, 0.0, 1.0) == 0
    assert value_gradient(-0.3, 0.0, -1.0) == 0
    assert value_gradient(0.3, 0.0, -1.0) > 0


def test_explained_variance():
    target = torch.tensor([1.0, 2.0, 4.0])
    assert float(explained_variance(target + 5, target)) == 1
    assert float(explained_variance(torch.zeros(3), target)) == 0
    assert float(explained_variance(-target, target)) < 0
    assert float(explained_variance(target, torch.ones(3))) == 0


def random_rows(rows=9):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, generator=generator) * 0.3 for _ in range(4)]


def test_where_the_proximal_policy_acted_the_decoupled_loss_is_the_clipped_one():
    log_prob, old, advantage, _ = random_rows()
    weight = behavior_weight(old, old, cap=2.0)
    assert weight.tolist() == [1.0] * 9
    loss, stats = decoupled_surrogate(log_prob, old, advantage, 0.2, weight)
    expected, expected_stats = clipped_surrogate(log_prob, old, advantage, 0.2)
    assert torch.equal(loss, expected)
    for name, values in expected_stats.items():
        assert torch.equal(stats[name], values)


def test_unclipped_the_decoupled_gradient_is_plain_importance_weighting():
    """Two actions of probability 1/4 and 3/4 when drawn, 1/2 each for the proximal policy."""
    behavior, proximal = torch.tensor([0.25, 0.75]).log(), torch.tensor([0.5, 0.5]).log()
    advantage = torch.tensor([3.0, -1.0])
    logit = torch.tensor(0.1, requires_grad=True)
    log_prob = torch.stack([logit.sigmoid(), (-logit).sigmoid()]).log()
    weight = behavior_weight(proximal, behavior, cap=10.0)
    assert weight.tolist() == pytest.approx([2.0, 2 / 3])
    # In expectation over who acted: each action as often as the behavior policy draws it.
    loss = 0.0
    for action, share in enumerate(behavior.exp()):
        row = slice(action, action + 1)
        given = (log_prob[row], proximal[row], advantage[row], 0.5, weight[row])
        loss = loss + share * decoupled_surrogate(*given)[0]
    (gradient,) = torch.autograd.grad(loss, logit)
    # The policy's own expected advantage, 3 p - (1 - p), has the slope 4 p (1 - p).
    p = float(logit.detach().sigmoid())
    assert float(gradient) == pytest.approx(-4 * p * (1 - p), rel=1e-5)


def test_the_weight_is_truncated_and_carries_no_gradient():
    log_prob, proximal, advantage, behavior = random_rows()
    proximal.requires_grad_()
    behavior = behavior - 0.2
    weight = behavior_weight(proximal, behavior, cap=1.5)
    assert weight.max().item() == 1.5
    assert weight.min().item() < 1.5
    log_prob.requires_grad_()
    loss, _ = decoupled_surrogate(log_prob, proximal.detach(), advantage, 0.2, weight)
    loss.backward()
    assert log_prob.grad.any()
    assert proximal.grad is None
