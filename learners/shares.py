"""Who computes which rows of a batch: processes side by side, each in micro-batches.

The gradient of a batch is the sum of what its rows give. So a batch that does not fit into memory
is computed in parts, and several processes compute a part each and add their gradients up: the
weights then take the same step as with the whole batch at once, up to the order of additions.
Leaves out who starts the processes (`torchrun`, see `docs/stages.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_BUCKET = 2**24
"""Numbers that are sent at a time."""
_SHORTEST = 0.75
"""Length of the shortest row of a group, as a share of the longest."""


def length_buckets(
    lengths: Sequence[int], most: int = 0, shortest: float = _SHORTEST
) -> list[NDArray[np.int64]]:
    """Places of `lengths` in groups, of which none holds a length below `shortest` of its longest.

    Longest first. With 0.75 no more than a quarter of any row is padding.

    Args:
        lengths: of the rows, above zero.
        most: rows of a group; 0: any number.
        shortest: in (0, 1].
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    groups: list[list[int]] = []
    for place in order.tolist():
        fits = groups and lengths[place] >= shortest * lengths[groups[-1][0]]
        if fits and not (most and len(groups[-1]) == most):
            groups[-1].append(place)
        else:
            groups.append([place])
    return [np.array(group) for group in groups]


def divided(rows: NDArray[np.int64], micro_batch: int) -> list[NDArray[np.int64]]:
    """`rows` in their order, at most `micro_batch` at a time (0: all); none of nothing."""
    step = micro_batch or max(1, len(rows))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


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

    def own(self, size: int, first: int = 0) -> NDArray[np.int64]:
        """This process' rows of `size`, dealt out in turns, of which `first` were dealt before.

        Neighbors go to different processes: sorted by length, all have long and short ones.
        """
        return np.arange((self.rank - first) % self.world, size, self.world)

    def alike(self, lengths: NDArray[np.int64], micro_batch: int) -> list[NDArray[np.int64]]:
        """This process' rows of a batch of `lengths` [B], grouped so that little is padded.

        At most `micro_batch` at a time (0: any number), see `length_buckets`. Every process has as
        many groups, as it must where the model is divided: those with fewer split their largest.
        """
        assert len(lengths) % self.world == 0
        by_length, groups = np.argsort(lengths, kind="stable"), []
        for rank in range(self.world):
            own = by_length[rank :: self.world]
            buckets = length_buckets(lengths[own].tolist(), micro_batch)
            groups.append([own[bucket] for bucket in buckets])
        mine = groups[self.rank]
        while len(mine) < max(map(len, groups)):
            largest = max(range(len(mine)), key=lambda place: len(mine[place]))
            mine[largest : largest + 1] = np.array_split(mine[largest], 2)
        return mine

    def micro_batches(self, rows: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
        """This process' part of `rows` [M], at most `size` at a time, and how many of them count.

        Every process has as many micro-batches: one that has run out of rows is given the first of
        all, which counts 0 times.
        """
        own = rows[self.rank :: self.world]
        yield from ((part, len(part)) for part in own.split(size) if len(part))
        most, done = -(-len(rows) // self.world), len(own)
        yield from [(rows[:1], 0)] * (-(-most // size) - -(-done // size))

    def gathered(self, size: int, part: Callable[[Tensor], Tensor], step: int) -> Tensor:
        """What `part` gives for all rows 0 ... `size` - 1, computed by all processes together.

        Args:
            size: `M`
            part: of some rows [b], a tensor [b, ...].
            step: rows at a time.

        Returns:
            [M, ...], on every process.
        """
        each = -(-size // self.world)
        # Those short of a row compute the last one once more.
        own = (torch.arange(each) * self.world + self.rank).clamp(max=size - 1)
        found = torch.cat([part(rows) for rows in own.split(step)])
        if self.world == 1:
            return found
        parts = [torch.empty_like(found) for _ in range(self.world)]
        dist.all_gather(parts, found.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)[:size]

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

        Where only some processes have a gradient, because no row of the others led to that
        parameter, it counts as zero for the others. Where none has, there is none afterwards.

        All processes must give the same parameters, in the same order. Those of a divided model
        (`learners.sharding`) are left out: theirs were summed on the way back.
        """
        if self.world == 1:
            return
        trained = [p for p in parameters if not isinstance(p, DTensor)]
        reached = torch.tensor([float(p.grad is not None) for p in trained])
        dist.all_reduce(reached)
        bucket: list[Tensor] = []
        for parameter, count in zip(trained, reached.tolist(), strict=True):
            if count == 0:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradient = parameter.grad
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
