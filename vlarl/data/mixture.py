"""Which source, and which of its samples, stands at each position of an endless mixed stream.

A pure function of the seed and the position, so that nothing else need be kept to resume. Sources
take turns by a fixed rule, not by chance: after any number of samples each has had its share, to
less than one sample. Within a source, embodiments take turns, within an embodiment tasks, and
within a task every sample comes once in each pass, in an order drawn anew (embodiment-balanced and
task-balanced sampling, paper section 3.1). Leaves out what the samples are.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite, lcm

import numpy as np
from numpy.typing import NDArray

PERIOD = 65_536
"""Longest period of the turns. Weights whose ratios need a longer one are rounded to it."""

Groups = Sequence[Sequence[NDArray[np.int64]]]
"""Of one source: embodiment -> task -> numbers of its samples."""


def turns_of(weights: Sequence[float]) -> tuple[int, ...]:
    """How often each source comes in one period, which is as long as the sum.

    Exact wherever decimal weights have a common period of at most `PERIOD`; otherwise by largest
    remainders, at least 1 for each source.

    Raises:
        ValueError: if there are no weights, or any is not finite and above zero.
    """
    if not weights:
        raise ValueError("an empty mixture: give at least one source")
    wrong = [weight for weight in weights if not (isfinite(weight) and weight > 0)]
    if wrong:
        raise ValueError(f"weights must be finite and above zero, not {wrong[0]}")
    exact = [Fraction(repr(float(weight))) for weight in weights]
    shares = [weight / sum(exact) for weight in exact]
    period = lcm(*(share.denominator for share in shares))
    if period <= PERIOD:
        return tuple(int(share * period) for share in shares)
    turns = [max(1, int(share * PERIOD)) for share in shares]
    remainders = [float(share * PERIOD) - turn for share, turn in zip(shares, turns, strict=True)]
    while sum(turns) < PERIOD:
        largest = int(np.argmax(remainders))
        turns[largest] += 1
        remainders[largest] -= 1
    return tuple(turns)


def order_of(turns: Sequence[int]) -> NDArray[np.int64]:
    """[sum(turns)] the source of each position of a period.

    The quota method of apportionment (Balinski and Young, 1975): of the sources that would not get
    ahead of their share rounded up, the one that is due first. None then falls behind its share
    rounded down, so that every prefix is within one sample of the shares.
    """
    period = sum(turns)
    order = np.empty(period, np.int64)
    given = [0] * len(turns)
    for place in range(period):
        open_to = [i for i, n in enumerate(turns) if given[i] * period < n * (place + 1)]
        due = min(open_to, key=lambda i: (given[i] + 1) / turns[i])
        order[place] = due
        given[due] += 1
    return order


class BalancedOrder:
    """The samples of one source, one after another: a pure function of its seed and the number."""

    def __init__(self, groups: Groups, seed: Sequence[int]) -> None:
        """`seed` tells sources apart.

        Raises:
            ValueError: if there is no embodiment, one without tasks, or a task without samples.
        """
        if not groups or not all(groups) or not all(len(t) for tasks in groups for t in tasks):
            raise ValueError("a source needs samples in each of its tasks and embodiments")
        self._groups, self._seed = groups, tuple(seed)
        self._orders: dict[tuple[int, ...], tuple[int, NDArray[np.int64]]] = {}

    def sample(self, number: int) -> int:
        """Sample `number` (the first is 0) of the source's stream."""
        embodiment, number = self._turn((), len(self._groups), number)
        tasks = self._groups[embodiment]
        task, number = self._turn((embodiment,), len(tasks), number)
        place, _ = self._turn((embodiment, task), len(tasks[task]), number)
        return int(tasks[task][place])

    def _turn(self, path: tuple[int, ...], size: int, number: int) -> tuple[int, int]:
        """Whose turn of `size` it is below `path`, and how many turns it has had."""
        if size == 1:
            return 0, number
        block, place = divmod(number, size)
        drawn_for, order = self._orders.get(path, (-1, None))
        if order is None or drawn_for != block:
            random = np.random.default_rng([*self._seed, len(path), *path, block])
            order = random.permutation(size)
            self._orders[path] = block, order
        return int(order[place]), block


class Mixture:
    """The mixed stream.

    Attributes:
        turns: of each source in one period.
    """

    def __init__(self, weights: Sequence[float], sources: Sequence[Groups], seed: int) -> None:
        """`weights` need not sum to anything.

        Raises:
            ValueError: as `turns_of` and `BalancedOrder`.
        """
        assert len(weights) == len(sources)
        self.turns = turns_of(weights)
        self._order = order_of(self.turns)
        self._rank = np.empty_like(self._order)
        for source, turns in enumerate(self.turns):
            self._rank[self._order == source] = np.arange(turns)
        self._sources = [
            BalancedOrder(groups, (seed, number)) for number, groups in enumerate(sources)
        ]

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source and sample [B] at each of `positions` [B] of the stream (the first is 0)."""
        periods, places = np.divmod(positions, len(self._order))
        sources = self._order[places]
        numbers = periods * np.array(self.turns)[sources] + self._rank[places]
        pairs = zip(sources.tolist(), numbers.tolist(), strict=True)
        samples = [self._sources[source].sample(number) for source, number in pairs]
        return sources, np.array(samples, np.int64)
