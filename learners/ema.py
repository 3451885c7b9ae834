"""The exponential moving average of the weights that train (`supervised.ema`).

Kept in float32 beside the model, whatever its number format. Leaves out when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from learners.sharding import gathered_like, local, part_like


class WeightAverage:
    """`average <- decay * average + (1 - decay) * weights` after each optimizer step."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        """Start at the present weights; `decay` in (0, 1)."""
        assert 0 < decay < 1
        self._parameters, self._decay = list(parameters), decay
        # A copy also where the weights are float32 already: `float` alone would share memory.
        self._averages = [local(p.detach()).to(torch.float32, copy=True) for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        for average, parameter in zip(self._averages, self._parameters, strict=True):
            average.lerp_(local(parameter).float(), 1 - self._decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average while the block runs, and its own weights again after it."""
        own = [local(parameter.detach()).clone() for parameter in self._parameters]
        self._write(self._averages)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            local(parameter).copy_(value)

    def state(self) -> list[Tensor]:
        """The averages, in the order of the parameters; see `learners.sharding.gathered`."""
        pairs = zip(self._averages, self._parameters, strict=True)
        return [gathered_like(average, parameter) for average, parameter in pairs]

    def load(self, averages: Sequence[Tensor]) -> None:
        """Inverse of `state`."""
        for own, saved, like in zip(self._averages, averages, self._parameters, strict=True):
            own.copy_(part_like(saved, like))
