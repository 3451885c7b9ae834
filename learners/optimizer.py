"""AdamW with one peak rate for each part of the model, a warmup and a cosine.

Both learners (supervised and PPO) use this file; it knows parts by name only. Leaves out when to
step and what to log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from learners.masters import MasteredOptimizer, below_float32
from learners.muon import Muon
from learners.sharding import local, total_norm
from vlarl.config.schema import OptimizerConfig
from vlarl.errors import ConfigError

Parts = Mapping[str, Sequence[nn.Parameter]]
"""part -> its parameters; every parameter of the model is in exactly one part."""


def build_optimizer(
    parts: Parts,
    config: OptimizerConfig,
    total_steps: int,
    orthogonal: Collection[Tensor] = (),
    offload: bool = False,
) -> tuple[AdamW | MasteredOptimizer, LambdaLR]:
    """An optimizer over the parts that have a rate; the other parts are frozen.

    If anything that trains is below float32, its float32 masters are what steps; of a divided
    model, this process' parts.

    Freezing sets `requires_grad` to False; parts with a rate get it set to True. Parameters with
    fewer than two dimensions (norms, biases) are not decayed. Each group of the optimizer carries
    its part's name under `part`.

    Args:
        parts: the model's parameters by part.
        config: rates, betas, decay and schedule.
        total_steps: optimizer steps until the rate has fallen to `final_fraction` of its peak.
        orthogonal: matrices that step by `Muon` instead of AdamW.
        offload: whether the optimizer, and what it remembers, is kept on the CPU.

    Raises:
        ConfigError: if a rate is given for an unknown part, is not positive, or for none at all.
    """
    _check_rates(parts, config)
    groups = _groups(parts, config, set(orthogonal))
    kind = Muon if orthogonal else AdamW
    weights = [parameter for group in groups for parameter in group["params"]]

    def over(master: Callable[[nn.Parameter], nn.Parameter]) -> AdamW:
        mapped = [{**group, "params": [*map(master, group["params"])]} for group in groups]
        return kind(mapped, betas=config.betas, fused=True)

    optimizer: AdamW | MasteredOptimizer
    if offload or any(below_float32(weight) or local(weight) is not weight for weight in weights):
        optimizer = MasteredOptimizer(weights, over, offload)
        stepped = optimizer.inner
    else:
        optimizer = stepped = over(lambda weight: weight)
    warmup, final = config.warmup_steps, config.final_fraction
    scheduler = LambdaLR(stepped, lambda step: rate_factor(step, total_steps, warmup, final))
    return optimizer, scheduler


def rate_of(part: str, config: OptimizerConfig) -> float | None:
    """Peak rate of a part, None if frozen; `X_biases` has that of `X` unless given its own."""
    rates = config.learning_rates
    return rates.get(part, rates.get(part.removesuffix("_biases")))


def _groups(
    parts: Parts, config: OptimizerConfig, orthogonal: Collection[Tensor]
) -> list[dict[str, Any]]:
    """What trains, in groups of one rate and decay; the other parts are frozen."""
    groups: list[dict[str, Any]] = []
    for part, parameters in parts.items():
        rate = rate_of(part, config)
        for parameter in parameters:
            parameter.requires_grad_(rate is not None)
            # A gradient left by an earlier stage would count in the norm and never be cleared.
            parameter.grad = None
        if rate is None:
            continue
        common = {"lr": rate, "part": part}
        turned = [p for p in parameters if p in orthogonal]
        matrices = [p for p in parameters if p.dim() >= 2 and p not in orthogonal]
        vectors = [p for p in parameters if p.dim() < 2]
        decay = config.weight_decay
        if turned:
            groups.append({"params": turned, "weight_decay": decay, "orthogonal": True, **common})
        for members, its_decay in ((matrices, decay), (vectors, 0.0)):
            if members:
                groups.append({"params": members, "weight_decay": its_decay, **common})
    return groups


def _check_rates(parts: Parts, config: OptimizerConfig) -> None:
    known = ", ".join(parts)
    if not config.learning_rates:
        raise ConfigError(f"optimizer.learning_rates is empty; give a rate for some of: {known}")
    for part, rate in config.learning_rates.items():
        if part not in parts:
            raise ConfigError(
                f"optimizer.learning_rates: unknown part {part!r}; this model has: {known}"
            )
        if not rate > 0:
            raise ConfigError(
                f"optimizer.learning_rates.{part} is {rate}; give a positive rate, "
                "or leave the part out to freeze it"
            )


def rate_factor(step: int, total_steps: int, warmup_steps: int, final_fraction: float) -> float:
    """What the peak rate is multiplied by at optimizer step `step` (the first is 0).

    Linear over `warmup_steps` (already above 0 at the first step), then a cosine from 1 to
    `final_fraction` at `total_steps`, and constant after that.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def clip_gradients(parts: Parts, max_norm: float) -> dict[str, float]:
    """Scale all gradients together so that their total norm is at most `max_norm`, in place.

    Returns:
        Norms before clipping: one for each part that has gradients, and `total`. A total that is
        not finite is returned as it is, for the caller to refuse; nothing is scaled then.
    """
    norms: dict[str, torch.Tensor] = {}
    gradients: list[torch.Tensor] = []
    for part, parameters in parts.items():
        members = [p.grad for p in parameters if p.grad is not None]
        if members:
            norms[part] = total_norm(members)
            gradients += map(local, members)
    if not norms:
        return {"total": 0.0}
    total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    if torch.isfinite(total) and total > max_norm:
        torch._foreach_mul_(gradients, max_norm / float(total))
    return {part: float(norm) for part, norm in norms.items()} | {"total": float(total)}
