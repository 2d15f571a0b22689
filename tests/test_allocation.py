"""A budget moved between problems: by hand, against trying all, and a case in which all of it is known."""

from itertools import product

import numpy as np
import pytest

from tts.analysis import allocation, choice
from tts.analysis.intervals import resample_counts

QUINTILE = np.repeat([1, 2, 3, 4, 5], 4)
# By quintile and candidate, a cheap and a dear one; four problems a quintile.
GAINS = np.array([[1, 1], [0.5, 0.6], [0.2, 0.8], [0, 0.5], [0, 0]])
ALIKE = allocation.by_quintile(np.repeat(GAINS, 4, axis=0), QUINTILE)  # (20, 5, 2)
COSTS = allocation.by_quintile(np.tile([1.0, 4.0], (20, 1)), QUINTILE)


def test_by_hand():
    """All cheap costs 5, one dear quintile 8, two 11. The dear one goes where it gains most."""
    accuracy, cost = GAINS, np.tile([1.0, 4.0], (5, 1))
    assert allocation.allocate(accuracy, cost, 10).tolist() == [0, 0, 1, 0, 0]
    assert allocation.allocate(accuracy, cost, 11).tolist() == [0, 0, 1, 1, 0]
    assert allocation.allocate(accuracy, cost, 100).tolist() == [0, 1, 1, 1, 0], "a tie goes to the cheaper"
    assert allocation.allocate(accuracy, cost, 1).tolist() == [0, 0, 0, 0, 0], "the cheapest way, if none is within"


def test_against_trying_all():
    rng = np.random.default_rng(0)
    accuracy, cost, budget = rng.random((7, 5, 3)), rng.random((7, 5, 3)), np.linspace(0.5, 3.5, 7)
    chosen = allocation.allocate(accuracy, cost, budget)
    for i in range(7):
        ways = [way for way in product(range(3), repeat=5) if sum(cost[i][range(5), way]) <= budget[i]]
        best = max(ways, key=lambda way: sum(accuracy[i][range(5), way]), default=None)
        cheapest = tuple(cost[i].argmin(axis=1))
        assert tuple(chosen[i]) == (best or cheapest)


def test_by_the_quintile_of_each_order():
    """One problem, two orders, in which it is in quintiles 1 and 3; its sum over quintiles is its mean."""
    values = np.array([[[1.0, 0.0]], [[1.0, 1.0]]])  # (orders, P, candidates)
    found = allocation.by_quintile(values, np.array([[1], [3]]))
    assert found[0].tolist() == [[0.5, 0], [0, 0], [0.5, 0.5], [0, 0], [0, 0]]
    assert found.sum(axis=1) == pytest.approx(values.mean(axis=0))
    assert allocation.by_quintile(values[0], np.array([2]))[0, 1].tolist() == [1, 0]


def test_what_is_the_same_in_both_halves_is_what_it_is():
    """All problems of a quintile are alike, so each half chooses the same, and what is spent is what was planned."""
    right, spent = allocation.cross_fitted(ALIKE, COSTS, QUINTILE, 2.2)
    assert right == pytest.approx(np.repeat([1, 0.5, 0.8, 0.5, 0], 4))
    assert spent.mean() == pytest.approx((3 * 1 + 2 * 4) / 5)


def test_without_a_bound_it_is_the_compute_optimal_choice():
    rng = np.random.default_rng(0)
    accuracy = rng.random((3, 20, 1))  # (methods, P, budgets)
    spread = allocation.by_quintile(accuracy[:, :, 0].T, QUINTILE)
    right, spent = allocation.cross_fitted(spread, np.zeros_like(spread), QUINTILE, np.inf, splits=7, seed=3)
    assert right == pytest.approx(choice.cross_fitted(accuracy, QUINTILE, splits=7, seed=3)[:, 0])
    assert (spent == 0).all()
    counts = resample_counts(20, resamples=5)
    drawn = allocation.resampled(spread, np.zeros_like(spread), QUINTILE, counts, np.inf, splits=7, seed=3)
    assert drawn == pytest.approx(choice.resampled(accuracy, QUINTILE, counts, splits=7, seed=3)[0][:, 0])


def test_the_other_half_pays_for_luck():
    """Candidates that differ by luck alone: chosen on the same problems they would gain, on others they don't."""
    rng = np.random.default_rng(1)
    quintile = np.repeat([1, 2, 3, 4, 5], 40)
    accuracy = rng.integers(0, 2, size=(200, 4)).astype(float)
    spread = allocation.by_quintile(accuracy, quintile)
    right, _ = allocation.cross_fitted(spread, (spread > -1) * 1.0, quintile, np.inf)
    assert right.mean() < 0.53 < spread.sum(axis=0).max(axis=1).sum() / 200


def test_resampling_what_is_there_gives_what_is_there():
    """Each problem drawn once is the estimate itself; drawn twice, twice its sum."""
    rng = np.random.default_rng(2)
    accuracy, cost = (allocation.by_quintile(rng.random((20, 3)), QUINTILE) for _ in range(2))
    counts = np.stack([np.ones(20, int), np.full(20, 2)])
    once, twice = allocation.resampled(accuracy, cost, QUINTILE, counts, 0.4, splits=5)
    right, _ = allocation.cross_fitted(accuracy, cost, QUINTILE, 0.4, splits=5)
    assert once == pytest.approx(right.sum())
    assert twice == pytest.approx(2 * right.sum())


def test_resamples_vary_about_the_estimate():
    drawn = allocation.resampled(ALIKE, COSTS, QUINTILE, resample_counts(20, resamples=400), 2.2) / 20
    assert 0.3 < drawn.mean() < 0.6
    assert drawn.std() > 0.02
