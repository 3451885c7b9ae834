"""Intervals and tests against hand-computed values and against what they must do under symmetry."""

import random

import pytest

from vlarl.evaluation.report import plain_metrics
from vlarl.evaluation.results import (
    Outcome,
    SwapOutcome,
    compare,
    significant_falls,
    summarize,
    summarize_swap,
)
from vlarl.evaluation.statistics import mcnemar, normal_interval, paired_interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (score without correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_published_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_mirrors_when_success_and_failure_change_places():
    low, high = wilson(37, 120)
    assert wilson(83, 120) == pytest.approx((1 - high, 1 - low))
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="episodes"):
        wilson(successes, n)


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says_and_moves_with_the_values():
    draws = random.Random(0)
    samples = [[draws.uniform(0, 1) for _ in range(40)] for _ in range(2000)]
    intervals = [normal_interval(sample) for sample in samples]
    held = sum(low < 0.5 < high for low, high in intervals) / len(intervals)
    assert 0.925 < held < 0.965
    moved = normal_interval([3 - 2 * value for value in samples[0]])
    low, high = intervals[0]
    assert moved == pytest.approx((3 - 2 * high, 3 - 2 * low))
    with pytest.raises(ValueError, match="two or more"):
        normal_interval([0.5])


def test_metrics_are_means_over_the_episodes_that_have_them():
    rows = [
        Outcome("walk", 1, True, 9, {"spl": 1.0}),
        Outcome("walk", 2, False, 9, {"spl": 0.0}),
        Outcome("ride", 3, True, 9, {"spl": 0.25}),
        Outcome("grasp", 4, True, 9),
    ]
    summary = summarize(rows, 1)
    assert summary["metrics"]["spl"]["mean"] == pytest.approx(1.25 / 3)
    assert summary["tasks"]["walk"]["metrics"]["spl"]["mean"] == 0.5
    assert summary["tasks"]["ride"]["metrics"]["spl"] == {"mean": 0.25, "interval": None}
    assert "metrics" not in summary["tasks"]["grasp"]
    assert "spl  0.417" in plain_metrics(summary)
    assert plain_metrics(summarize(rows[3:], 4)) == ""


def table(both, lost, gained, neither):
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


def test_paired_interval_of_identical_outcomes_is_symmetric_about_zero():
    before, after = table(30, 0, 0, 20)
    low, high = paired_interval(before, after)
    assert low == pytest.approx(-high)
    assert 0 < high < 0.1


def test_paired_interval_changes_sign_when_the_policies_change_places():
    before, after = table(90, 14, 60, 92)
    low, high = paired_interval(before, after)
    back_low, back_high = paired_interval(after, before)
    assert (back_low, back_high) == pytest.approx((-high, -low))
    assert low < 46 / 256 < high


def test_paired_interval_without_correlation_joins_the_two_wilson_intervals_squarewise():
    # Outcomes independent of one another: 2 * 2 == 2 * 2, so the pairs say nothing more.
    before, after = table(2, 2, 2, 2)
    low, high = wilson(4, 8)
    expected = ((0.5 - low) ** 2 + (high - 0.5) ** 2) ** 0.5
    assert paired_interval(before, after) == pytest.approx((-expected, expected))


def test_paired_interval_covers_the_true_difference_about_as_often_as_it_says():
    draw = random.Random(0)
    covered = 0
    for _ in range(400):
        before, after = [], []
        for _ in range(128):
            kind = draw.random()
            before.append(kind < 0.45)
            after.append(kind < 0.35 or 0.45 <= kind < 0.75)
        low, high = paired_interval(before, after)
        covered += low <= 0.20 <= high
    assert 0.92 <= covered / 400 <= 0.985


def test_mcnemar_by_hand():
    # 1 lost, 5 gained: 2 * (C(6,0) + C(6,1)) / 64.
    assert mcnemar(*table(3, 1, 5, 2)) == pytest.approx(14 / 64)
    assert mcnemar(*table(3, 5, 1, 2)) == pytest.approx(14 / 64)
    assert mcnemar(*table(3, 0, 0, 2)) == 1.0
    assert mcnemar(*table(3, 4, 4, 2)) == 1.0
    with pytest.raises(ValueError, match="same episodes"):
        mcnemar([True], [])


def outcomes(task, text, first_seed=0):
    return [Outcome(task, first_seed + i, mark == "1", 10) for i, mark in enumerate(text)]


def test_summary_and_comparison_of_two_tasks():
    before = summarize(outcomes("spoon", "1100") + outcomes("carrot", "11111111"), seed=7)
    after = summarize(outcomes("spoon", "1111") + outcomes("carrot", "00000010"), seed=7)
    assert before["episodes"] == 12
    assert before["tasks"]["spoon"]["success_rate"] == 0.5
    assert before["success_rate"] == pytest.approx(10 / 12)
    difference = compare(before, after)
    assert (difference["gained"], difference["lost"]) == (2, 7)
    assert difference["difference"] == pytest.approx(-5 / 12)
    assert difference["tasks"]["spoon"]["difference"] == 0.5
    assert significant_falls(difference) == ["carrot"]
    assert significant_falls(compare(after, before)) == []


def test_comparison_pairs_by_episode_and_not_by_position():
    rows = outcomes("spoon", "1010")
    difference = compare(summarize(rows, 0), summarize(rows[::-1], 0))
    assert (difference["gained"], difference["lost"]) == (0, 0)


def test_comparison_refuses_other_episodes():
    with pytest.raises(ValueError, match="same seed"):
        compare(summarize(outcomes("a", "11"), 0), summarize(outcomes("a", "11", 5), 5))
    twice = summarize(outcomes("a", "11") * 2, 0)
    with pytest.raises(ValueError, match="twice"):
        compare(twice, twice)


def test_swap_summary_tells_own_from_named():
    rows = [
        SwapOutcome("spoon", "carrot", seed, own_success=seed == 0, named_success=True, steps=4)
        for seed in range(4)
    ]
    found = summarize_swap(rows, seed=0)
    assert found["own"]["success_rate"] == 0.25
    assert found["named"]["success_rate"] == 1.0
    assert found["tasks"]["spoon"]["own"]["episodes"] == 4
