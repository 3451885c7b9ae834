"""From noise to action chunks in `S` steps, with or without exploration, and the density of it.

Pure functions of tensors: the network is a `VelocityFunction`. The sampler and the learner get
log-probabilities from the same function, so that the same tensors give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from tensordict import TensorDict
from torch import Tensor

from vlarl.config.schema import ExplorationConfig
from vlarl.exploration import (
    correlated,
    euler_step,
    flow_times,
    gaussian_log_prob,
    transition,
)
from vlarl.noise import Generators, integers, normal

VelocityFunction = Callable[[Tensor, Tensor], Tensor]
"""`velocity(y [B, H, K], tau [B])` -> [B, H, K], for a fixed batch of observations."""

ExploredChunk: TypeAlias = TensorDict
"""What exploration leaves, batch size [B]: `action` [B, H, K] the chunk (not clipped), `mask`
[B, H, K], `scored` [B, H, K] the entries whose density counts, `log_prob` [B], and the scored
transition: `step` [B] its denoising index, `y_k` and `y_next` [B, H, K]. With `logprob_at: all`
these three have a second dimension [B, n, ...] for the `n` stochastic steps, and `log_prob` is of
all of them."""


def step_range(config: ExplorationConfig, steps: int) -> tuple[int, int]:
    """First and last denoising index that may be stochastic.

    Raises:
        ValueError: if they are not denoising indices of `steps`, or in the wrong order.
    """
    last = steps - 1 if config.last_step == -1 else config.last_step
    if not 0 <= config.first_step <= last < steps:
        raise ValueError(
            f"stochastic steps {config.first_step}..{last} are not within 0..{steps - 1}"
        )
    return config.first_step, last


def sample_ode(velocity: VelocityFunction, noise: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Deterministic denoising with Euler steps.

    Args:
        velocity: of the chunks' observations.
        noise: [B, H, K] where to start, temperature included; padded entries are ignored.
        mask: [B, H, K] bool, the entries that count.
        steps: `S`.

    Returns:
        [B, H, K] chunks `y0`, zero where padded.
    """
    times = flow_times(steps).to(noise.device)[:, None].expand(-1, len(noise))
    padded = ~mask
    y = noise.masked_fill(padded, 0.0)
    for index in range(steps):
        drift = velocity(y, times[index]).masked_fill(padded, 0.0)
        y = euler_step(y, drift, times[index], times[index + 1])
    return y


def sample_explore(
    velocity: VelocityFunction,
    noise: Tensor,
    mask: Tensor,
    steps: int,
    config: ExplorationConfig,
    temperature: float,
    generator: Generators,
    log_std: Tensor | None = None,
    scored_steps: int | None = None,
) -> ExploredChunk:
    """Denoising with exploration noise.

    With `noise_at: one` each sample draws its own stochastic step, uniformly within the configured
    range; all other steps are deterministic. With `all`, every step of the range is stochastic, and
    `logprob_at: one` draws which of them is scored.

    Args:
        velocity: of the chunks' observations.
        noise: [B, H, K] where to start, temperature included; padded entries are ignored.
        mask: [B, H, K] bool, the entries that count.
        steps: `S`.
        config: kind, level and place of the noise.
        temperature: multiplies the standard deviation of the noise added on the way.
        generator: draws steps and noise, on the CPU; one, or several with their numbers of rows.
        log_std: [K] learned, for `flow_noise` alone.
        scored_steps: control steps, from the first, whose density counts; None: all of `mask`.

    Raises:
        ValueError: if a scored step would have no noise, or the config is contradictory.
    """
    if config.logprob_at == "all" and config.noise_at == "one":
        raise ValueError("logprob_at=all needs noise_at=all")
    first, last = step_range(config, steps)
    times = flow_times(steps).to(noise.device)[:, None].expand(-1, len(noise))
    padded = ~mask
    y = noise.masked_fill(padded, 0.0)
    scored = integers(first, last, len(noise), generator).to(noise.device)
    fresh = _fresh(noise, config, generator)
    walked: list[tuple[Tensor, Tensor, Tensor]] = []
    for index in range(steps):
        before, tau, tau_next = y, times[index], times[index + 1]
        drift = velocity(y, tau).masked_fill(padded, 0.0)
        y = euler_step(before, drift, tau, tau_next)
        if not first <= index <= last:
            continue
        if config.noise_at == "all" and index > first:
            fresh = _fresh(noise, config, generator)
        step = transition(config, before, drift, tau, tau_next, temperature, log_std)
        drawn = (step.mean + step.std * fresh).masked_fill(padded, 0.0)
        here = (scored == index)[:, None, None]
        y = drawn if config.noise_at == "all" else torch.where(here, drawn, y)
        walked.append((before, drift, y))
    if config.logprob_at == "all":
        every = torch.arange(first, last + 1, device=noise.device)
        scored = every.expand(len(noise), -1).contiguous()
    y_k, drift_k, y_next = _scored_of(walked, scored - first)
    counted = mask.clone()
    counted[:, scored_steps:] &= scored_steps is None
    found = {"action": y, "mask": mask, "scored": counted, "step": scored, "y_k": y_k}
    explored = TensorDict({**found, "y_next": y_next}, batch_size=[len(noise)])
    explored["log_prob"] = _log_prob(explored, drift_k, steps, config, temperature, log_std)
    return explored


def _scored_of(walked: list[tuple[Tensor, Tensor, Tensor]], places: Tensor) -> list[Tensor]:
    """Before, drift and after [B, H, K] of each sample's stochastic step at its place [B].

    With several places [B, n] of each sample, [B, n, H, K].
    """
    rows = torch.arange(len(places), device=places.device)
    own = rows if places.dim() == 1 else rows[:, None]
    return [torch.stack(parts, dim=1)[own, places] for parts in zip(*walked, strict=True)]


def _fresh(like: Tensor, config: ExplorationConfig, generator: Generators) -> Tensor:
    """Exploration noise [B, H, K], drawn on the CPU: the same numbers for each device."""
    drawn = correlated(normal(like.shape, generator), config.correlation)
    return drawn.to(like.device)


def score(
    velocity: VelocityFunction,
    chunk: ExploredChunk,
    steps: int,
    config: ExplorationConfig,
    temperature: float,
    log_std: Tensor | None = None,
) -> Tensor:
    """[B] log-probability of the chunk's stored transitions under `velocity`.

    One velocity evaluation for each stored transition; `y_next` is scored as it was drawn.

    Raises:
        ValueError: if a stored step has no noise.
    """
    times = flow_times(steps).to(chunk["y_k"].device)
    step, before, padded = chunk["step"], chunk["y_k"], ~chunk["mask"]
    if step.dim() == 1:
        drift = velocity(before, times[step]).masked_fill(padded, 0.0)
    else:
        columns = zip(before.unbind(1), step.unbind(1), strict=True)
        drift = torch.stack(
            [velocity(y, times[index]).masked_fill(padded, 0.0) for y, index in columns], dim=1
        )
    return _log_prob(chunk, drift, steps, config, temperature, log_std)


def _log_prob(
    chunk: ExploredChunk,
    drift: Tensor,
    steps: int,
    config: ExplorationConfig,
    temperature: float,
    log_std: Tensor | None,
) -> Tensor:
    """[B] log-probability of the stored transitions, given the velocity `drift` at `y_k`."""
    times = flow_times(steps).to(drift.device)
    step, mask = chunk["step"], chunk["scored"]
    scored = 1 if step.dim() == 1 else step.shape[1]
    step, before, after, drift = (
        tensor.flatten(0, step.dim() - 1) for tensor in (step, chunk["y_k"], chunk["y_next"], drift)
    )
    mask = mask.repeat_interleave(scored, dim=0)
    move = transition(config, before, drift, times[step], times[step + 1], temperature, log_std)
    each = gaussian_log_prob(
        after, move.mean, move.std, mask, config.logprob_reduction, config.correlation
    )
    each = each.view(-1, scored)
    return each.sum(dim=1) if config.logprob_reduction == "sum" else each.mean(dim=1)
