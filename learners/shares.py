"""Who computes which rows of a batch: processes side by side, each in micro-batches.

The gradient of a batch is the sum of what its rows give. So a batch that does not fit into memory
is computed in parts, and several processes compute a part each and add their gradients up: the
weights then take the same step as with the whole batch at once, up to the order of additions.
Leaves out who starts the processes (`torchrun`, see `docs/stages.md`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET = 2**24
"""Numbers that are sent at a time."""


@dataclass(frozen=True)
class Peers:
    """The processes of a training: `rank` of `world`."""

    rank: int = 0
    world: int = 1

    @staticmethod
    def joined() -> Peers:
        """Those of the default process group; without one, this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return Peers()
        return Peers(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes what only one should."""
        return self.rank == 0

    def parts(self, size: int, micro_batch: int) -> list[slice]:
        """This process' rows of a batch of `size`, at most `micro_batch` at a time (0: all).

        `size` is a multiple of `world`.
        """
        assert size % self.world == 0
        own = size // self.world
        first, step = self.rank * own, micro_batch or own
        return [
            slice(start, min(start + step, first + own))
            for start in range(first, first + own, step)
        ]

    def total(self, number: float) -> float:
        """The sum of every process' number."""
        if self.world == 1:
            return number
        summed = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(summed)
        return float(summed)

    def wait(self) -> None:
        """Until every process has come here."""
        if self.world > 1:
            dist.barrier()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum of every process', in place.

        All processes must have gradients of the same parameters, in the same order.
        """
        if self.world == 1:
            return
        bucket: list[Tensor] = []
        for gradient in (p.grad for p in parameters if p.grad is not None):
            fits = not bucket or (
                gradient.dtype == bucket[0].dtype
                and sum(g.numel() for g in bucket) + gradient.numel() <= _BUCKET
            )
            if not fits:
                _add(bucket)
                bucket = []
            bucket.append(gradient)
        if bucket:
            _add(bucket)


def _add(gradients: Sequence[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
