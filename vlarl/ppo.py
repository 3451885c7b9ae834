"""The losses of PPO (paper eq. 6, 7) and what is measured of them: functions of [B] tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """[B] estimates of KL(old, new) from samples of the old policy: unbiased, never negative."""
    change = log_prob - old_log_prob
    return torch.expm1(change) - change


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, epsilon: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss, clipped alike on both sides (paper eq. 6).

    Args:
        log_prob: [B] of the stored actions, now.
        old_log_prob: [B] when they were drawn.
        advantage: [B]
        epsilon: half width of the clip range.

    Returns:
        The mean loss, and without gradient, each [B]: `ratio`, `kl`, and `clipped`, whether the
        ratio is out of range.
    """
    gained, stats = _clipped_gain(log_prob, old_log_prob, advantage, epsilon)
    return -gained.mean(), stats


def decoupled_surrogate(
    log_prob: Tensor,
    proximal_log_prob: Tensor,
    advantage: Tensor,
    epsilon: float,
    weight: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss where the policy to stay near is not the one that acted.

    The decoupled objective of Hilton, Cobbe and Schulman, "Batch size-invariance for policy
    optimization" (2021), with a truncated weight: the clip range is around the proximal policy, the
    one at the start of the update, and the weight makes up for who acted. With weight 1 it is
    `clipped_surrogate`.

    Args:
        log_prob: [B] of the stored actions, now.
        proximal_log_prob: [B] of them under the proximal policy.
        advantage: [B]
        epsilon: half width of the clip range.
        weight: [B] of `behavior_weight`; it carries no gradient.

    Returns:
        As `clipped_surrogate`; `ratio`, `kl` and `clipped` are to the proximal policy.
    """
    gained, stats = _clipped_gain(log_prob, proximal_log_prob, advantage, epsilon)
    return -(weight.detach() * gained).mean(), stats


def behavior_weight(proximal_log_prob: Tensor, behavior_log_prob: Tensor, cap: float) -> Tensor:
    """[B] probability of the actions under the proximal policy over that when they were drawn.

    At most `cap`, which bounds the variance of the loss and biases it for what it cuts.
    """
    return torch.exp(proximal_log_prob - behavior_log_prob).clamp(max=cap)


def _clipped_gain(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, epsilon: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """[B] what is to be maximized, and what is measured of it."""
    ratio = torch.exp(log_prob - old_log_prob)
    bounded = ratio.clamp(1 - epsilon, 1 + epsilon)
    gained = torch.minimum(ratio * advantage, bounded * advantage)
    with torch.no_grad():
        stats = {
            "ratio": ratio.detach(),
            "kl": approximate_kl(log_prob, old_log_prob),
            "clipped": (ratio - 1).abs() > epsilon,
        }
    return gained, stats


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float) -> Tensor:
    """Mean squared error to `target` [B], taken at the worse of `value` and `value` held near.

    Held near means within `clip` of `old_value`: moving further in one update earns nothing.
    """
    near = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum((value - target).square(), (near - target).square()).mean()


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Share of the targets' variance that the values predict; 0 if the targets do not vary."""
    variance = target.var(correction=0)
    if variance == 0:
        return torch.zeros(())
    return 1 - (target - value).var(correction=0) / variance
