"""The compute-optimal choice against hand-worked tables, and how its intervals cover."""

import numpy as np
import pytest
from scipy.stats import norm

from tts.analysis.choice import best_single, choose, cross_fitted, fit_plan, in_sample, per_problem, resampled
from tts.analysis.intervals import central_interval, mean_interval
from tts.companion.ledger import gain_of_choice
from tts.compute_optimal import METHODS
from tts.errors import InputError

QUINTILE = np.repeat([1, 2, 3, 4, 5], 4)


def test_choice_by_hand():
    """Method 1 is best in quintiles 1 and 2, method 0 in the others; a tie goes to the first."""
    accuracy = np.zeros((2, 20, 1))
    accuracy[1, :8] = 1.0
    accuracy[0, 8:] = 0.5
    accuracy[:, 16:] = 0.25
    assert choose(accuracy, QUINTILE).ravel().tolist() == [1, 1, 0, 0, 0]
    assert in_sample(accuracy, QUINTILE).ravel().tolist() == [1.0] * 8 + [0.5] * 8 + [0.25] * 4
    assert cross_fitted(accuracy, QUINTILE).ravel().tolist() == [1.0] * 8 + [0.5] * 8 + [0.25] * 4
    # One method for all: the first has 9 / 20 x ... = (8 x 0 + 8 x 0.5 + 4 x 0.25), the second 8 x 1 + 4 x 0.25.
    assert best_single(accuracy, QUINTILE).mean() == pytest.approx((8 + 1) / 20)
    assert per_problem(accuracy).mean() == pytest.approx((8 + 4 + 1) / 20)


def test_noise_alone_gains_nothing_when_it_is_measured_elsewhere():
    """Four equal methods: in-sample the choice seems to gain, across folds it does not."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(30):
        accuracy = rng.integers(0, 2, size=(4, 100, 1)).astype(float)
        quintile = np.repeat([1, 2, 3, 4, 5], 20)
        gains.append([f(accuracy, quintile).mean() - 0.5 for f in (in_sample, cross_fitted)])
    inside, across = np.mean(gains, axis=0)
    assert inside > 0.05
    assert abs(across) < 0.02


def test_too_few_problems_for_two_folds():
    with pytest.raises(InputError, match="a quintile has 1 problem"):
        cross_fitted(np.zeros((2, 5, 1)), np.array([1, 2, 3, 4, 5]))
    with pytest.raises(InputError, match="quintile 5 has no problems"):
        choose(np.zeros((2, 4, 1)), np.array([1, 2, 3, 4]))
    with pytest.raises(InputError, match="the same ones"):
        choose(np.zeros((2, 4, 1)), QUINTILE)


def test_a_method_without_a_budget_is_not_chosen_there():
    """Method 1 is right everywhere but has no accuracy at the first budget."""
    accuracy = np.zeros((2, 20, 2))
    accuracy[1] = [np.nan, 1.0]
    accuracy[0, :, 0] = 0.25
    assert choose(accuracy, QUINTILE).tolist() == [[0, 1]] * 5
    for measured in (in_sample, cross_fitted, best_single):
        assert measured(accuracy, QUINTILE).tolist() == [[0.25, 1.0]] * 20
    assert per_problem(accuracy).tolist() == [[0.25, 1.0]] * 20


def test_a_fitted_plan():
    accuracy = np.zeros((len(METHODS), 20, 2))
    accuracy[3, :4, 0] = 1.0
    accuracy[2, 16:, 1] = 1.0
    found = fit_plan(accuracy, QUINTILE, edges=[0.9, 0.7, 0.5, 0.1], budgets=[4, 16], probe=2)
    assert [found.method(ease, 4) for ease in (0.95, 0.8, 0.0)] == ["dvts", "majority", "majority"]
    assert [found.method(ease, 16) for ease in (0.95, 0.8, 0.0)] == ["majority", "majority", "beam_search"]


def simulated(true, *, problems, benchmarks, seed):
    """Right or wrong of each method, (methods, problems, benchmarks), at true rates (methods, 5) by quintile.

    A problem that is hard for one method is hard for all: half of the variance is the problem's own.
    """
    rng = np.random.default_rng(seed)
    rates = np.repeat(true, problems // 5, axis=1)[:, :, None]
    own, shared = rng.normal(size=(len(true), problems, benchmarks)), rng.normal(size=(problems, benchmarks))
    return ((own + shared) / 2**0.5 < norm.ppf(rates)).astype(float)


EQUAL = np.tile([0.95, 0.8, 0.5, 0.3, 0.1], (4, 1))
APART = np.array([[0, 0, 0, 0, 0], [0.03, 0.03, 0, 0, 0], [0, 0, 0.06, 0.06, 0.06], [0, 0, 0, 0.08, 0]])


def test_drawn_once_each_it_is_the_benchmark_itself():
    rng = np.random.default_rng(0)
    accuracy, quintile = rng.random((3, 50, 2)), np.repeat([1, 2, 3, 4, 5], 10)
    accuracy[1, :, 0] = np.nan  # a method that was not run at the first budget
    found = resampled(accuracy, quintile, np.ones((2, 50)), splits=7, seed=3)
    for sums, measured in zip(found, (cross_fitted, best_single), strict=True):
        expected = measured(accuracy, quintile, splits=7, seed=3).sum(axis=0)
        assert sums == pytest.approx(np.stack([expected, expected]))


def test_copies_of_a_problem_share_its_fold():
    """Each method is right on problems of its own, by chance, so that no choice gains anything on new problems.

    With copies in both folds, as when the resampled problems are split as if they were others, it seems to gain.
    """
    rng = np.random.default_rng(0)
    quintile = np.repeat([1, 2, 3, 4, 5], 20)
    together, apart = [], []
    for _ in range(40):
        accuracy = rng.integers(0, 2, size=(4, 100, 1)).astype(float)
        drawn = rng.integers(100, size=100)
        drawn.sort()  # by quintile
        optimal, _ = resampled(accuracy, quintile, np.bincount(drawn, minlength=100)[None])
        together.append(optimal[0, 0] / 100 - accuracy[:, drawn].mean())
        copied = cross_fitted(accuracy[:, drawn], quintile[drawn], splits=20)
        apart.append(copied.mean() - accuracy[:, drawn].mean())
    assert abs(np.mean(together)) < 0.015
    assert np.mean(apart) > 0.03


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0, 1, 3], ids=["equal methods", "a little apart", "far apart"])
def test_intervals_that_choose_anew_hold_the_true_gain(apart):
    """Claim 7 on simulated benchmarks of 200 problems, and what fixed choices would have made of it.

    The intervals are 1.5 to 2 times as wide as those of fixed choices. Of equal methods they hold more than they say.
    """
    rates = np.clip(EQUAL + apart * APART, 0, 0.99)
    accuracy = simulated(rates, problems=200, benchmarks=400, seed=3)
    quintile = np.repeat([1, 2, 3, 4, 5], 40)
    gain, drawn = gain_of_choice(accuracy, quintile, resamples=400)  # a benchmark in the place of a budget
    truth = gain.mean()  # what this way of choosing gains on average
    fixed, anew = mean_interval(gain, resamples=400)[1:], central_interval(drawn, 0.95)
    in_fixed, in_anew = (((low <= truth) & (truth <= high)).mean() for low, high in (fixed, anew))
    assert 0.65 < in_fixed < 0.87
    assert in_anew > 0.93
    assert 1.4 < np.diff(anew, axis=0).mean() / np.diff(fixed, axis=0).mean() < 2.2
