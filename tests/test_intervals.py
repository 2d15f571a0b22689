"""Intervals against what they promise, against scipy's own, and with seeds nested in problems."""

import numpy as np
import pytest
from scipy import stats

from tts.analysis.intervals import mean_interval, wilson
from tts.errors import InputError


def test_mean_interval_covers_as_often_as_it_says():
    """300 benchmarks of 100 problems, each with its own chance: 95 % intervals hold the true mean 95 times in 100."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        chances = rng.beta(1, 1.5, size=100)
        _, low, high = mean_interval((rng.random(100) < chances).astype(float), resamples=400)
        hits += low <= 0.4 <= high
    assert 0.91 <= hits / 300 <= 0.98


def test_mean_interval_of_a_paired_difference_is_narrower():
    rng = np.random.default_rng(3)
    easy = rng.random(200) < 0.5
    better = easy | (rng.random(200) < 0.1)
    mean, low, high = mean_interval(better.astype(float) - easy)
    assert low <= mean <= high
    assert high - low < 0.1
    assert low > 0


def test_mean_interval_of_columns_and_of_nothing():
    values = np.tile([[0.25, 1.0]], (10, 1))
    assert np.allclose(mean_interval(values), [[0.25, 1.0]] * 3)
    with pytest.raises(InputError, match="no problems"):
        mean_interval(np.zeros((0, 3)))


def test_equal_values_have_an_interval_around_them():
    for value in (0.1, 1 / 3, 0.7):
        for count in (3, 10, 199, 200):
            mean, low, high = mean_interval(np.full(count, value))
            assert low <= mean <= high
            assert high - low < 1e-9


# --- Seeds nested in problems ---------------------------------------------------------------------


def drawn(rng, problems, seeds):
    """Right or wrong for each problem and seed; each problem has a chance of its own, 0.4 on average."""
    chances = rng.beta(0.8, 1.2, size=problems)
    return rng.random((problems, seeds)) < chances[:, None]


@pytest.mark.slow
def test_with_seeds_nested_in_problems_the_interval_covers_and_with_seeds_as_problems_it_would_not():
    rng = np.random.default_rng(11)
    nested = flat = 0
    for _ in range(400):
        right = drawn(rng, 100, 5).astype(float)
        _, low, high = mean_interval(right.mean(axis=1), resamples=400)
        nested += low <= 0.4 <= high
        _, low, high = mean_interval(right.ravel(), resamples=400)
        flat += low <= 0.4 <= high
    assert 0.91 <= nested / 400 <= 0.98
    assert flat / 400 < 0.85


def test_the_paired_interval_is_scipys_bootstrap_and_close_to_students():
    rng = np.random.default_rng(2)
    right = drawn(rng, 200, 3).mean(axis=1)
    gain = np.clip(right + rng.normal(0.05, 0.2, size=200), 0, 1) - right
    mean, low, high = mean_interval(gain, resamples=9999)
    theirs = stats.bootstrap((gain,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    assert np.allclose([low, high], theirs, atol=0.05 * (high - low))
    students = stats.ttest_1samp(gain, 0.0).confidence_interval(0.95)
    assert np.allclose([low, high], students, atol=0.05 * (high - low))
    assert mean == pytest.approx(gain.mean())


# --- A share of few problems ----------------------------------------------------------------------


@pytest.mark.parametrize(("right", "total"), [(0, 7), (3, 10), (40, 40), (17, 100)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_against_scipy(right, total, level):
    share, low, high = wilson(right, total, level=level)
    expected = stats.binomtest(right, total).proportion_ci(level, method="wilson")
    assert share == right / total
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_no_problems():
    with pytest.raises(InputError, match="a quintile has no problems"):
        wilson(np.array([1, 0]), np.array([3, 0]))
