"""Flow matching: the straight path from clean action to noise, and its loss (paper section 2.5).

Flow time `tau` runs from 1 (pure noise `y1`) to 0 (clean normalized action `y0`), everywhere.
Leaves out how chunks are sampled (`sampler`) and where data comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlarl.config.schema import FlowConfig


def interpolate(y0: Tensor, y1: Tensor, tau: Tensor) -> Tensor:
    """The point of the path at flow time `tau` [B] between chunks [B, H, K]."""
    tau = tau[:, None, None]
    return (1 - tau) * y0 + tau * y1


def target_velocity(y0: Tensor, y1: Tensor) -> Tensor:
    """The path's velocity with growing `tau`: from clean to noise."""
    return y1 - y0


def predict_clean(y: Tensor, tau: Tensor, velocity: Tensor) -> Tensor:
    """Where the velocity says the path of `y` [B, H, K] at `tau` [B] starts: the clean action."""
    return y - tau[:, None, None] * velocity


def predict_noise(y: Tensor, tau: Tensor, velocity: Tensor) -> Tensor:
    """Where the velocity says the path of `y` [B, H, K] at `tau` [B] ends: the noise."""
    return y + (1 - tau[:, None, None]) * velocity


def flow_matching_loss(velocity: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error over the valid steps of each channel, then over the active channels (eq. 1, 2).

    Args:
        velocity: [B, H, K] predicted.
        target: [B, H, K]
        mask: [B, H, K] bool; every sample has at least one entry. What stands elsewhere, even NaN,
            changes neither loss nor gradient.

    Returns:
        [B] float32.
    """
    squared = (velocity - target).masked_fill(~mask, 0.0).float().square()
    valid_steps = mask.sum(dim=1)
    assert bool(valid_steps.any(dim=1).all()), "a sample without any valid entry has no loss"
    by_channel = squared.sum(dim=1) / valid_steps.clamp(min=1)
    return by_channel.sum(dim=1) / (valid_steps > 0).sum(dim=1)


def sample_tau(n: int, config: FlowConfig, generator: torch.Generator) -> Tensor:
    """[n] flow times for training.

    Beta with more weight on small `tau` favors the clean end; `logit_normal` is the sigmoid of a
    standard normal.

    Raises:
        ValueError: for an unknown distribution.
    """
    if config.tau_distribution == "logit_normal":
        return torch.sigmoid(torch.randn(n, generator=generator))
    if config.tau_distribution == "beta":
        # torch.distributions.Beta takes no generator; the gamma sampler beneath it does.
        shapes = torch.tensor([config.alpha, config.beta]).expand(n, 2)
        gammas = torch._standard_gamma(shapes, generator=generator)
        return gammas[:, 0] / gammas.sum(dim=1)
    raise ValueError(
        f"unknown tau_distribution {config.tau_distribution!r}; allowed: beta, logit_normal"
    )
