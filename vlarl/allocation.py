"""How many environments each task gets (paper section 4.2, rollout infrastructure).

Pure functions of arrays over `K` tasks and `N` environment streams. The paper gives tasks
environments in proportion to their difficulty; bounds, rounding and hysteresis are ours. Who keeps
the success rates and hands out episodes is `actors/task_allocation.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KINDS = ("uniform", "failure", "variance")
_EASIEST = 1e-6
"""Difficulty below which tasks count as alike: a scale that meets the sum needs all above zero."""


def running_rates(
    successes: NDArray[np.float64], episodes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[K] success rates by Laplace's rule: 0.5 where nothing is known, never exactly 0 or 1.

    Args:
        successes: [K] of the episodes, old ones counting for less.
        episodes: [K] counted alike.
    """
    return (successes + 1) / (episodes + 2)


def difficulty(rates: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """[K] what the shares of environments are in proportion to.

    Args:
        rates: [K] success rates in [0, 1].
        kind: `failure`: `1 - rate` (the paper's); `variance`: `rate * (1 - rate)`, of the outcome,
            which is nothing for a task that always fails: without a success there is no gradient.

    Raises:
        ValueError: for another kind.
    """
    if kind == "failure":
        return 1 - rates
    if kind == "variance":
        return rates * (1 - rates)
    raise ValueError(f"difficulty {kind!r}: use failure or variance")


def allocate(
    difficulties: NDArray[np.float64], environments: int, floor: float, ceiling: float
) -> NDArray[np.int64]:
    """[K] numbers of environments, in proportion to difficulty within bounds.

    A harder task never gets fewer. Shares beyond a bound go to the other tasks in proportion. They
    are rounded by largest remainders; among equals the first tasks get more.

    Args:
        difficulties: [K] of at least 0.
        environments: `N`, at least `K`: every task keeps one, or its rate would never be known.
        floor: smallest number for a task, as a multiple of the equal share `N / K`, in [0, 1].
        ceiling: largest number, likewise, at least 1.

    Raises:
        ValueError: if no such numbers exist.
    """
    tasks = len(difficulties)
    if not 1 <= tasks <= environments:
        raise ValueError(
            f"{environments} environments for {tasks} tasks: each task needs at least one"
        )
    if not 0 <= floor <= 1 <= ceiling:
        raise ValueError(f"floor={floor:g}, ceiling={ceiling:g}: use 0 <= floor <= 1 <= ceiling")
    low, high = _bounds(tasks, environments, floor, ceiling)
    return _rounded(_bounded_shares(difficulties, environments, low, high))


def kept_or_changed(
    current: NDArray[np.int64], proposed: NDArray[np.int64], margin: float
) -> NDArray[np.int64]:
    """[K] `proposed`, if it moves more than the share `margin` of all environments."""
    moved = np.abs(proposed - current).sum() / 2
    return proposed if moved > margin * current.sum() else current


def servers_by_difficulty(
    current: NDArray[np.int64],
    difficulties: NDArray[np.float64],
    floor: float,
    ceiling: float,
    fewest: int = 1,
) -> NDArray[np.int64]:
    """[G] servers of each suite: `allocate`'s, once some suite is due a whole server more or less.

    Less than that changes nothing, so that no server goes to and fro on the noise of a rate.

    Args:
        current: [G] of at least `fewest`.
        difficulties: [G] of the suites.
        floor: as `allocate`.
        ceiling: as `allocate`.
        fewest: servers that every suite keeps, whatever the floor.
    """
    assert current.min() >= fewest
    servers = int(current.sum())
    low, high = _bounds(len(current), servers, floor, ceiling)
    due = _bounded_shares(difficulties, servers, max(low, fewest), max(high, fewest))
    return _rounded(due) if np.abs(due - current).max() >= 1 else current


def reassigned(assignment: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] the task of every stream, so that task `k` has `counts[k]` of them; as few move as can.

    Args:
        assignment: [N] the tasks so far, as places in `counts`.
        counts: [K] that sum to `N`.
    """
    assert counts.sum() == len(assignment)
    surplus = np.bincount(assignment, minlength=len(counts)) - counts
    takers = iter(np.repeat(np.arange(len(counts)), np.maximum(-surplus, 0)))
    changed = assignment.copy()
    for stream, task in enumerate(assignment):
        if surplus[task] > 0:
            surplus[task] -= 1
            changed[stream] = next(takers)
    return changed


def _bounds(tasks: int, environments: int, floor: float, ceiling: float) -> tuple[int, int]:
    """Fewest and most for a task; whole numbers: rounding a share never leaves them."""
    equal = environments / tasks
    low = max(1, int(np.floor(floor * equal)))
    return low, min(environments, int(np.ceil(ceiling * equal)))


def _rounded(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """[K] whole numbers of the same sum, by largest remainders; the first of equals get more."""
    counts = np.floor(shares).astype(np.int64)
    neediest = np.argsort(counts - shares, kind="stable")
    counts[neediest[: round(shares.sum()) - counts.sum()]] += 1
    return counts


def _bounded_shares(
    difficulties: NDArray[np.float64], total: int, low: int, high: int
) -> NDArray[np.float64]:
    """[K] `clip(scale * difficulty, low, high)` with the one scale by which they sum to `total`."""
    weights = np.maximum(difficulties, _EASIEST)
    below, above = 0.0, high / weights.min()
    # The sum grows with the scale; as many halvings as a float has bits find it.
    for _ in range(100):
        scale = (below + above) / 2
        if np.clip(scale * weights, low, high).sum() < total:
            below = scale
        else:
            above = scale
    # What remains of the error must not decide which of two equal remainders is larger.
    return np.round(np.clip(above * weights, low, high), 9)
