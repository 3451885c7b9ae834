"""Decisions of weights that are no more: how old they are, and what they count for.

Age is in updates, and measured where a batch is learned from. The objective is in `vlarl.ppo`.

What the clip ranges bound is the step of one update. So both are around the proximal policy, the
one at its start: that of the ratio, and that of the value. Around the acting value, the value of a
stale decision would be out of range before the first step: with no gradient where it has come
nearer to its target since, and else free to go that much further. Targets and advantages stay those
of the acting values: what came of a decision was bootstrapped by them, and the observations that
new ones would need are not kept.
"""

from __future__ import annotations

from torch import Tensor

from learners.measurements import Measurements
from vlarl.ppo import approximate_kl, behavior_weight


def young_enough(age: Tensor, max_staleness: int, measured: Measurements) -> Tensor:
    """[M] bool: which decisions may be learned from, by their `age` [M]; at least one is."""
    young = age <= max_staleness
    assert young.any(), "no decision of the batch is young enough"
    measured.add("dropped_over_age", (~young).sum())
    measured.add("batch_age", age[young].max())
    measured.add("batch_age_mean", age[young].float().mean())
    return young


def weigh(proximal: Tensor, behavior: Tensor, cap: float, measured: Measurements) -> Tensor:
    """[M] weights of decisions, from their log-probabilities [M] now and when they were made."""
    weight = behavior_weight(proximal, behavior, cap)
    measured.add("behavior_weight_mean", weight.mean())
    measured.add("behavior_weight_truncated", (weight >= cap).float().mean())
    measured.add("behavior_kl", approximate_kl(proximal, behavior).mean())
    return weight
