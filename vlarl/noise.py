"""Random numbers for a batch whose rows belong to several, each with a generator of its own.

What a row draws does not depend on who else is in the batch. All numbers are drawn on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Generators: TypeAlias = torch.Generator | Sequence[tuple[torch.Generator, int]]
"""One for all rows, or each with the number of rows that it draws for, in their order."""


def normal(shape: Sequence[int], generators: Generators) -> Tensor:
    """Standard normal numbers of `shape` [n, ...]."""
    return _drawn(lambda n, one: torch.randn((n, *shape[1:]), generator=one), shape[0], generators)


def integers(low: int, high: int, n: int, generators: Generators) -> Tensor:
    """[n] int64, uniform in `low` ... `high`, both included."""
    return _drawn(
        lambda rows, one: torch.randint(low, high + 1, (rows,), generator=one), n, generators
    )


def _drawn(
    draw: Callable[[int, torch.Generator], Tensor], n: int, generators: Generators
) -> Tensor:
    if isinstance(generators, torch.Generator):
        return draw(n, generators)
    assert sum(rows for _, rows in generators) == n, "generators are of another number of rows"
    return torch.cat([draw(rows, one) for one, rows in generators])
