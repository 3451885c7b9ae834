"""Means and extremes over one PPO update.

Kept as tensors until its end: the inner loop never waits for a number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from learners.shares import Peers


class Measurements:
    """Weighted means by name, and of KL and clip fraction also by denoising step.

    Attributes:
        counting: whether what is added counts; if not, its weight is 0.
    """

    def __init__(self, denoising_steps: int, device: torch.device) -> None:
        """`device` is where most of the measured numbers are."""
        self._device = device
        self.counting = True
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        self._weights: dict[str, float] = defaultdict(float)
        self._largest: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        self._by_step = torch.zeros(3, denoising_steps, device=device)

    def add(self, name: str, value: Tensor | float, weight: float = 1.0) -> None:
        """Count `value` (a scalar) `weight` times."""
        number = torch.as_tensor(value, device=self._device).detach()
        weight = weight if self.counting else 0.0
        self._sums[name] = self._sums[name] + weight * number
        self._weights[name] += weight

    def largest(self, name: str, value: Tensor) -> None:
        """Keep the largest `value` (a scalar)."""
        found = value.detach() if self.counting else torch.zeros_like(value)
        self._largest[name] = torch.maximum(self._largest[name], found)

    def add_surrogate(self, loss: Tensor, stats: Mapping[str, Tensor], step: Tensor) -> None:
        """Count a micro-batch: the mean loss, statistics [b] of it, and denoising steps.

        With several scored steps [b, n] for each chunk, the statistics are theirs together and are
        not told apart.
        """
        size = len(stats["kl"])
        self.add("policy_loss", loss, size)
        self.add("approximate_kl", stats["kl"].mean(), size)
        self.add("clip_fraction", stats["clipped"].float().mean(), size)
        if step.dim() == 1 and self.counting:
            columns = torch.stack(
                [stats["kl"], stats["clipped"].float(), torch.ones_like(stats["kl"])]
            )
            self._by_step.index_add_(1, step, columns)

    def add_up(self, peers: Peers) -> None:
        """Count what every process counted; all call this, with the same names in the same order.

        Largest values are not below zero.
        """
        if peers.world == 1:
            return
        sums = torch.stack([*self._sums.values()]).cpu().double()
        weights = torch.tensor([*self._weights.values()], dtype=torch.float64)
        steps = self._by_step.cpu().double()
        for tensor in (sums, weights, steps):
            dist.all_reduce(tensor)
        self._sums.update(zip(self._sums, sums, strict=True))
        self._weights.update(zip(self._weights, weights.tolist(), strict=True))
        self._by_step = steps
        for name, value in self._largest.items():
            found = value.cpu()
            dist.all_reduce(found, dist.ReduceOp.MAX)
            self._largest[name] = found

    def metrics(self) -> dict[str, float]:
        """Everything counted, as plain numbers."""
        means = {name: float(total) / self._weights[name] for name, total in self._sums.items()}
        means |= {name: float(value) for name, value in self._largest.items()}
        for index, (kl, clipped, count) in enumerate(self._by_step.T.tolist()):
            if count:
                means[f"approximate_kl/step_{index}"] = kl / count
                means[f"clip_fraction/step_{index}"] = clipped / count
        return means
