"""The vectorised curves against enumeration of every order, and the intervals against what they promise."""

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest

from tts.errors import InputError
from tts.analysis.curves import pass_at_k, powers_of_four, powers_of_two, vote_curve
from tts.analysis.grading import answer_codes
from tts.analysis.intervals import mean_interval
from tts.voting import majority, vanilla, weighted


def test_answer_codes_by_hand():
    codes, gold = answer_codes([["x", None, "y", "x"], [None, "z", "z", "w"]], ["y", "q"])
    assert codes.tolist() == [[0, -1, 1, 0], [-1, 0, 0, 1]]
    assert gold.tolist() == [1, -2]


def test_powers_of_two():
    assert powers_of_two(1) == [1]
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(24) == [1, 2, 4, 8, 16, 24]
    with pytest.raises(InputError, match="n_max is 0"):
        powers_of_two(0)


@pytest.mark.parametrize("rule", ["majority", "weighted", "vanilla"])
def test_vote_curve_against_every_order(rule):
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 3, size=(12, 5))
    scores = rng.integers(0, 4, size=codes.shape) / 4  # quarters add exactly and tie often
    gold = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, -2])
    choose = {"majority": lambda keys, _: majority(keys), "weighted": weighted, "vanilla": vanilla}[rule]

    def exact(p, n):
        orders = list(permutations(range(5)))
        keys = [None if code < 0 else code for code in codes[p]]
        chosen = [choose([keys[i] for i in order[:n]], [scores[p, i] for i in order[:n]]) for order in orders]
        return np.mean([answer == gold[p] for answer in chosen])

    ns = [1, 2, 3, 5]
    found = vote_curve(codes, gold, ns, rule=rule, scores=scores, draws=4000)
    expected = np.array([[exact(p, n) for n in ns] for p in range(12)])
    # four standard errors of a mean of 4,000 draws
    assert np.abs(found - expected).max() < 4 * 0.5 / 4000**0.5
    assert (found[11] == 0).all()  # the gold answer that nobody gave


def test_vote_curve_without_ties_is_exact_at_all_samples():
    codes = np.array([[0, 1, 1, 1, 0], [-1, -1, -1, -1, -1]])
    curve = vote_curve(codes, np.array([1, -2]), [1, 5], draws=50)
    assert curve[:, 1].tolist() == [1.0, 0.0]
    assert 0 < curve[0, 0] < 1


def test_vote_curve_is_seeded_and_blind_to_the_stored_order():
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 4, size=(40, 16))
    gold = np.zeros(40, dtype=int)
    curve = vote_curve(codes, gold, [4], draws=500)
    assert (curve == vote_curve(codes, gold, [4], draws=500)).all()
    assert np.abs(curve - vote_curve(codes[:, ::-1], gold, [4], draws=500)).mean() < 0.04


def test_vote_curve_refuses_what_is_not_there():
    codes = np.zeros((2, 4), dtype=int)
    with pytest.raises(InputError, match="there are 4"):
        vote_curve(codes, np.zeros(2), [8])
    with pytest.raises(InputError, match="needs one score"):
        vote_curve(codes, np.zeros(2), [2], rule="weighted")


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    correct = np.array([[1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=bool)
    for k in range(1, 7):
        brute = [np.mean([row[list(chosen)].any() for chosen in combinations(range(6), k)]) for row in correct]
        assert np.allclose(pass_at_k(correct, [k])[:, 0], brute)


def test_pass_at_k_formula_at_size():
    correct = np.zeros((1, 256), dtype=bool)
    correct[0, :3] = True
    ks = [1, 2, 64, 253, 254, 256]
    expected = [1 - comb(253, k) / comb(256, k) for k in ks]
    assert np.allclose(pass_at_k(correct, ks)[0], expected)


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


def test_budgets_of_searches():
    assert [powers_of_four(n) for n in (4, 15, 16, 64, 256, 300)] == [
        [4],
        [4],
        [4, 16],
        [4, 16, 64],
        [4, 16, 64, 256],
        [4, 16, 64, 256],
    ]
    with pytest.raises(InputError, match="n_max is 3: the smallest budget"):
        powers_of_four(3)


def test_equal_values_have_an_interval_around_them():
    for value in (0.1, 1 / 3, 0.7):
        for count in (3, 10, 199, 200):
            mean, low, high = mean_interval(np.full(count, value))
            assert low <= mean <= high
            assert high - low < 1e-9
