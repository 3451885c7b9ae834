"""Which sample stands where in a mixed stream: shares, balance, passes, resuming."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vlarl.data.mixture import PERIOD, BalancedOrder, Mixture, order_of, turns_of

TABLE_1 = (74.2, 6.0, 7.5, 3.7, 3.4, 2.5, 2.4, 0.2)
WEIGHTS = [TABLE_1, (1.0, 1.0, 1.0), (0.7, 0.3), (5.0,), (1e-3, 1.0, 0.123, 40.0), (1, 2, 2, 9, 50)]


def one_task(size):
    return [[np.arange(size)]]


def test_the_turns_of_table_1_are_its_proportions():
    """It sums to 99.9, so that its period is 999."""
    assert turns_of(TABLE_1) == (742, 60, 75, 37, 34, 25, 24, 2)
    assert turns_of((0.5, 0.25, 0.25)) == (2, 1, 1)
    assert turns_of((3, 3)) == (1, 1)


def test_weights_without_a_short_period_are_rounded():
    turns = turns_of((0.123456789, 0.987654321, 1e-9))
    assert sum(turns) == PERIOD
    assert turns[2] == 1
    shares = np.array([0.123456789, 0.987654321]) / 1.111111111
    np.testing.assert_allclose(np.array(turns[:2]) / PERIOD, shares, atol=2 / PERIOD)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_prefix_is_within_one_sample_of_the_shares(weights):
    sizes = range(3, 3 + len(weights))
    mixture = Mixture(weights, [one_task(size) for size in sizes], 0)
    positions = np.arange(2 * sum(mixture.turns) + 7)
    sources, _ = mixture.at(positions)
    counts = np.cumsum(sources[:, None] == np.arange(len(weights)), axis=0)
    wanted = (positions + 1)[:, None] * np.array(weights) / np.sum(weights)
    assert np.abs(counts - wanted).max() < 1
    np.testing.assert_array_equal(np.bincount(order_of(mixture.turns)), mixture.turns)


def test_a_resumed_stream_is_the_one_that_never_stopped():
    groups = [
        [[np.arange(5), np.arange(5, 12)], [np.arange(12, 15)]],
        one_task(4),
        [[np.arange(6)], [np.array([6])], [np.array([7, 8])]],
    ]
    whole = Mixture((5, 1, 2.5), groups, 3).at(np.arange(500))
    for start in (0, 1, 17, 256, 499):
        rest = Mixture((5, 1, 2.5), groups, 3).at(np.arange(start, 500))
        for one, other in zip(whole, rest, strict=True):
            np.testing.assert_array_equal(one[start:], other)
    backwards = Mixture((5, 1, 2.5), groups, 3).at(np.arange(499, -1, -1))
    np.testing.assert_array_equal(backwards[1], whole[1][::-1])
    other = Mixture((5, 1, 2.5), groups, 4).at(np.arange(500))
    np.testing.assert_array_equal(whole[0], other[0])
    assert (whole[1] != other[1]).any()


def test_far_positions_cost_no_more_than_near_ones():
    mixture = Mixture(TABLE_1, [one_task(1000)] * 8, 0)
    far = 999 * 10**9
    sources, samples = mixture.at(np.arange(far, far + 999))
    np.testing.assert_array_equal(sources, mixture.at(np.arange(999))[0])
    assert len(set(samples[sources == 0])) > 500


def test_a_source_is_balanced_by_embodiment_and_by_task():
    """Of very different sizes: three embodiments, of which the second has three tasks."""
    sizes = [[50], [1, 200, 10], [7, 7]]
    first = np.cumsum([0, *(size for tasks in sizes for size in tasks)])
    starts = iter(first)
    groups = [[np.arange(size) + next(starts) for size in tasks] for tasks in sizes]
    order = BalancedOrder(groups, (0,))
    owner = np.repeat([0, 1, 1, 1, 2, 2], [50, 1, 200, 10, 7, 7])
    task = np.repeat(np.arange(6), [50, 1, 200, 10, 7, 7])
    drawn = np.array([order.sample(number) for number in range(900)])
    for length in (1, 2, 3, 10, 301, 900):
        by_embodiment = np.bincount(owner[drawn[:length]], minlength=3)
        assert np.ptp(by_embodiment) <= 1
        by_task = np.bincount(task[drawn[:length]], minlength=6)
        assert np.ptp(by_task[1:4]) <= 1
        assert np.ptp(by_task[4:]) <= 1
    for number, size in enumerate([50, 1, 200, 10, 7, 7]):
        own = drawn[task[drawn] == number]
        for start in range(0, len(own), size):
            here = own[start : start + size]
            assert len(set(here)) == len(here), "a sample twice within a pass"


def test_each_pass_has_an_order_of_its_own():
    order = BalancedOrder(one_task(30), (0,))
    passes = [[order.sample(30 * n + k) for k in range(30)] for n in range(3)]
    assert all(Counter(each) == Counter(range(30)) for each in passes)
    assert passes[0] != passes[1] != passes[2]


def test_sources_of_one_shape_have_orders_of_their_own():
    mixture = Mixture((1, 1), [one_task(50)] * 2, 0)
    sources, samples = mixture.at(np.arange(100))
    assert (samples[sources == 0] != samples[sources == 1]).any()


def test_what_is_no_mixture_is_refused():
    with pytest.raises(ValueError, match="an empty mixture"):
        Mixture((), (), 0)
    for weight in (-1.0, 0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite and above zero, not"):
            Mixture((1.0, weight), [one_task(2)] * 2, 0)
    for groups in ([], [[]], [[np.arange(0)]]):
        with pytest.raises(ValueError, match="needs samples"):
            Mixture((1.0,), [groups], 0)
