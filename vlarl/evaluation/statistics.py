"""Intervals and tests for success rates, single and paired. Numpy-free arithmetic on 0/1 outcomes.

Paired means: both policies met the same initial states, so each episode is compared with its
twin. Nothing here is random: the paired interval is Newcombe's score interval, not a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

PAIRED_METHOD = "Newcombe's hybrid score interval for paired proportions"


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate.

    Raises:
        ValueError: unless `0 <= successes <= n` and `n > 0`.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} episodes: needs 0 <= successes <= n, n > 0")
    z = _quantile(confidence)
    rate = successes / n
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    spread = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, center - spread)
    high = 1.0 if successes == n else min(1.0, center + spread)
    return low, high


def mean_interval(
    counts: Sequence[tuple[int, int]], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of several independent success rates, each with the same weight.

    Wilson limits of each, their distances from the rates combined as those of independent figures
    (Zou and Donner, Statistics in Medicine 27, 2008).

    Args:
        counts: (successes, episodes) of each.
        confidence: of the interval.

    Raises:
        ValueError: for no rates, or as `wilson` does.
    """
    if not counts:
        raise ValueError("the mean of no rates has no interval")
    mean = sum(won / n for won, n in counts) / len(counts)
    limits = [(won / n, *wilson(won, n, confidence)) for won, n in counts]
    below = math.hypot(*(rate - low for rate, low, _ in limits)) / len(counts)
    above = math.hypot(*(high - rate for rate, _, high in limits)) / len(counts)
    return max(0.0, mean - below), min(1.0, mean + above)


def normal_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a mean by the normal approximation: for figures other than success.

    Raises:
        ValueError: for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values: the interval of a mean needs two or more")
    mean = fmean(values)
    spread = _quantile(confidence) * stdev(values, mean) / math.sqrt(len(values))
    return mean - spread, mean + spread


def paired_counts(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int, int, int]:
    """How many episodes were won (both times, only before, only after, never).

    Raises:
        ValueError: for no episodes or sequences of unequal length.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} and {len(after)} outcomes: pairs need the same episodes")
    pairs = [(bool(a), bool(b)) for a, b in zip(before, after, strict=True)]
    return (
        pairs.count((True, True)),
        pairs.count((True, False)),
        pairs.count((False, True)),
        pairs.count((False, False)),
    )


def paired_interval(
    before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of `mean(after) - mean(before)` over the same episodes.

    Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, method 10): Wilson limits of
    the two rates, combined with the correlation of the pairs.

    Args:
        before: [n] success of each episode with the first policy.
        after: [n] success of the same episodes with the second.
        confidence: of the two-sided interval.
    """
    both, lost, gained, neither = paired_counts(before, after)
    n = len(before)
    rate_before, rate_after = (both + lost) / n, (both + gained) / n
    low_before, high_before = wilson(both + lost, n, confidence)
    low_after, high_after = wilson(both + gained, n, confidence)
    correlation = _corrected_correlation(both, lost, gained, neither)
    difference = rate_after - rate_before
    below = _combine(rate_after - low_after, high_before - rate_before, correlation)
    above = _combine(high_after - rate_after, rate_before - low_before, correlation)
    return difference - below, difference + above


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided McNemar p-value that the episodes won and those lost are equally likely."""
    _, lost, gained, _ = paired_counts(before, after)
    changed = lost + gained
    tail = sum(math.comb(changed, k) for k in range(min(lost, gained) + 1))
    return min(1.0, 2.0 * tail / 2**changed)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _combine(first: float, second: float, correlation: float) -> float:
    square = first * first - 2 * correlation * first * second + second * second
    return math.sqrt(max(0.0, square))


def _corrected_correlation(both: int, lost: int, gained: int, neither: int) -> float:
    """Phi coefficient of the 2 x 2 table, positive ones reduced by Newcombe's correction."""
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    product = both * neither - lost * gained
    if product > 0:
        product = max(product - (both + lost + gained + neither) / 2, 0)  # type: ignore[assignment]
    return product / math.sqrt(margins)
