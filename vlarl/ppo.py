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
    ratio = torch.exp(log_prob - old_log_prob)
    bounded = ratio.clamp(1 - epsilon, 1 + epsilon)
    loss = -torch.minimum(ratio * advantage, bounded * advantage).mean()
    with torch.no_grad():
        stats = {
            "ratio": ratio.detach(),
            "kl": approximate_kl(log_prob, old_log_prob),
            "clipped": (ratio - 1).abs() > epsilon,
        }
    return loss, stats


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
