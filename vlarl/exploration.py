"""Denoising steps as Gaussians: how a flow becomes a stochastic policy with a density.

One function for each kind of exploration noise. Which steps are stochastic, and what is stored of
them, is the sampler's business. All in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vlarl.config.schema import ExplorationConfig
from vlarl.flow import predict_clean, predict_noise


@dataclass(frozen=True)
class Transition:
    """Gaussian of the next chunk, given the present one."""

    mean: Tensor
    """[B, H, K]"""
    std: Tensor
    """[B, 1, 1], or [B, 1, K] where each channel has its own."""


def flow_times(steps: int) -> Tensor:
    """[steps + 1] the grid from 1 (noise) to exactly 0 (clean)."""
    return torch.arange(steps, -1, -1, dtype=torch.float32) / steps


def euler_step(y: Tensor, velocity: Tensor, tau: Tensor, tau_next: Tensor) -> Tensor:
    """The deterministic step of [B, H, K] chunks from flow time `tau` [B] to `tau_next` [B]."""
    return y - (tau - tau_next)[:, None, None] * velocity


def transition(
    config: ExplorationConfig,
    y: Tensor,
    velocity: Tensor,
    tau: Tensor,
    tau_next: Tensor,
    temperature: float = 1.0,
    log_std: Tensor | None = None,
) -> Transition:
    """The step of `euler_step`, made stochastic.

    Args:
        config: the kind of noise and its level.
        y: [B, H, K] chunks.
        velocity: [B, H, K] at `y`.
        tau: [B] flow times.
        tau_next: [B] smaller ones.
        temperature: multiplies the standard deviation, never the drift.
        log_std: [K] learned, for `flow_noise` alone.

    Raises:
        ValueError: for an unknown kind, or `flow_noise` without `log_std`.
    """
    if config.kind == "flow_sde":
        mean, std = _flow_sde(y, velocity, tau, tau_next, config.noise_level)
    elif config.kind == "flow_cps":
        mean, std = _flow_cps(y, velocity, tau, tau_next, config.noise_level)
    elif config.kind == "flow_noise":
        if log_std is None:
            raise ValueError("flow_noise needs the model's exploration_log_std")
        mean = euler_step(y, velocity, tau, tau_next)
        std = bounded_std(log_std, config.std_low, config.std_high).expand(len(y), 1, -1)
    else:
        raise ValueError(
            f"unknown exploration kind {config.kind!r}; allowed: flow_sde, flow_cps, flow_noise"
        )
    return Transition(mean, temperature * std)


def _flow_sde(
    y: Tensor, velocity: Tensor, tau: Tensor, tau_next: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """Reverse-time SDE with the marginals of the flow; its score is `-noise / tau`."""
    step = tau - tau_next
    # sigma is infinite at pure noise; there, the next grid point stands in.
    anchor = torch.where(tau == 1, tau_next, tau)
    sigma = level * (tau / (1 - anchor)).sqrt()
    pull = (sigma.square() * step / (2 * tau))[:, None, None]
    mean = euler_step(y, velocity, tau, tau_next) - pull * predict_noise(y, tau, velocity)
    return mean, (step.sqrt() * sigma)[:, None, None]


def _flow_cps(
    y: Tensor, velocity: Tensor, tau: Tensor, tau_next: Tensor, level: float
) -> tuple[Tensor, Tensor]:
    """Part of the predicted noise is exchanged for fresh noise, so that its total stays."""
    after = tau_next[:, None, None]
    clean, noise = predict_clean(y, tau, velocity), predict_noise(y, tau, velocity)
    angle = math.pi * level / 2
    mean = clean * (1 - after) + noise * (after * math.cos(angle))
    return mean, after * math.sin(angle)


def bounded_std(log_std: Tensor, low: float, high: float) -> Tensor:
    """[K] standard deviations strictly between `low` and `high`.

    Between the bounds the parameter is nearly the logarithm itself; beyond them it saturates
    smoothly, so that it can come back (a clamp has no gradient there).
    """
    log_low, log_high = math.log(low), math.log(high)
    span, middle = log_high - log_low, (log_high + log_low) / 2
    return torch.exp(log_low + span * torch.sigmoid(4 / span * (log_std - middle)))


def correlated(noise: Tensor, correlation: float) -> Tensor:
    """White noise [..., H, K] as a stationary AR(1) process over the control steps `H`.

    Each entry stays standard normal; steps `i` and `j` correlate by `correlation ** |i - j|`. White
    noise on every control step cancels in the path that the hand takes; this does not.
    """
    if correlation == 0:
        return noise
    fresh = math.sqrt(1 - correlation**2)
    steps = [noise[..., 0, :]]
    for step in noise.unbind(-2)[1:]:
        steps.append(correlation * steps[-1] + fresh * step)
    return torch.stack(steps, dim=-2)


def _whitened(noise: Tensor, correlation: float) -> Tensor:
    """Inverse of `correlated`; a step's result depends on it and the one before alone."""
    innovation = noise[..., 1:, :] - correlation * noise[..., :-1, :]
    fresh = math.sqrt(1 - correlation**2)
    return torch.cat([noise[..., :1, :], innovation / fresh], dim=-2)


def gaussian_log_prob(
    x: Tensor,
    mean: Tensor,
    std: Tensor,
    mask: Tensor,
    reduction: str = "sum",
    correlation: float = 0.0,
) -> Tensor:
    """Log-density of `x` [B, H, K] over the entries of `mask`.

    Args:
        x: what was drawn.
        mean: [B, H, K]
        std: broadcasts to `mean`.
        mask: [B, H, K] bool, the active channels of valid steps, which are the first ones.
        reduction: `sum`, the density of the chunk, or `mean`, over its entries.
        correlation: of neighboring steps' noise, as in `correlated`.

    Returns:
        [B] float32.

    Raises:
        ValueError: for a standard deviation of zero (there is no density), or an unknown reduction.
    """
    if not bool((std > 0).all()):
        raise ValueError(
            "a denoising step without noise has no density: raise noise_level, or choose a smaller "
            "last_step (flow_cps has no noise at the last one)"
        )
    deviations = (x - mean) / std
    density = -std.log() - 0.5 * math.log(2 * math.pi)
    if correlation:
        deviations = _whitened(deviations, correlation)
        later = torch.arange(x.shape[1], device=x.device)[:, None] > 0
        density = density - later * 0.5 * math.log(1 - correlation**2)
    density = density - 0.5 * deviations.square()
    total = density.masked_fill(~mask, 0.0).sum(dim=(1, 2))
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / mask.sum(dim=(1, 2))
    raise ValueError(f"unknown logprob_reduction {reduction!r}; allowed: sum, mean")
