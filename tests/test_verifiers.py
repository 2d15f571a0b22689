"""Measures of a verifier: by hand, against brute force over pairs, and against resampling written out."""

import numpy as np
import pytest

from tts.analysis.verifiers import (
    auc,
    blurred,
    calibration,
    calibration_error,
    finds_error,
    hashed_noise,
    pooled_auc,
    sibling_auc,
    until_error,
    within_auc,
)
from tts.errors import InputError

NAN = float("nan")


def brute_auc(right, wrong):
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    return np.mean(pairs) if pairs else NAN


@pytest.fixture
def scored():
    """12 problems of 7 solutions: scores that tie often, a few left out, one problem with no wrong solution."""
    rng = np.random.default_rng(4)
    correct = rng.random((12, 7)) < 0.4
    scores = np.round(rng.random(correct.shape) * 0.7 + 0.3 * correct, 1)
    scores[rng.random(correct.shape) < 0.1] = NAN
    correct[3] = True
    return scores, correct


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [([0.9], [0.1], 1.0), ([0.1], [0.9], 0.0), ([0.5], [0.5], 0.5), ([0.8, 0.4], [0.6, 0.4], 0.625)],
)
def test_auc_by_hand(right, wrong, expected):
    assert auc(right, wrong) == expected


def test_auc_against_every_pair():
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(0, 6, 40) / 5, rng.integers(0, 5, 30) / 5
    assert auc(right, wrong) == pytest.approx(brute_auc(right, wrong))
    assert auc(wrong, right) == pytest.approx(1 - auc(right, wrong))


def test_auc_of_one_kind_is_no_number():
    assert np.isnan(auc([], [1.0]))
    assert np.isnan(auc([1.0], []))


def test_within_auc_is_the_auc_of_each_problem(scored):
    scores, correct = scored
    used = ~np.isnan(scores)
    expected = [brute_auc(s[u & c], s[u & ~c]) for s, u, c in zip(scores, used, correct, strict=True)]
    found = within_auc(scores, correct)
    assert np.allclose(found, expected, equal_nan=True)
    assert np.isnan(found[3])


def test_within_auc_is_blind_to_how_easy_a_problem_is():
    """Scores that only know the problem: pooled they look good, within a problem they are a coin."""
    correct = np.array([[1, 1, 1, 0], [0, 0, 0, 1]], dtype=bool)
    scores = np.array([[0.9] * 4, [0.1] * 4])
    assert within_auc(scores, correct).tolist() == [0.5, 0.5]
    assert pooled_auc(scores, correct)[0] == 0.75


def test_pooled_auc_against_every_pair_and_resampling_written_out(scored):
    scores, correct = scored
    used = ~np.isnan(scores)
    right, wrong = used & correct, used & ~correct
    value, low, high = pooled_auc(scores, correct, resamples=300, seed=2)
    assert value == pytest.approx(brute_auc(scores[right], scores[wrong]))
    rng = np.random.default_rng(2)
    draws = []
    for counts in rng.multinomial(12, np.full(12, 1 / 12), size=300):
        rows = np.repeat(np.arange(12), counts)
        draws.append(auc(scores[rows][right[rows]], scores[rows][wrong[rows]]))
    assert [low, high] == pytest.approx(np.quantile(draws, [0.025, 0.975]))


def test_pooled_auc_of_one_kind_is_no_number():
    assert np.isnan(pooled_auc(np.ones((3, 2)), np.ones((3, 2), dtype=bool))).all()


def test_calibration_by_hand():
    """Five solutions in two bins of about equal size; equal scores are never parted."""
    scores = np.array([[0.05, 0.15, 1.0], [0.15, 0.95, NAN]])
    correct = np.array([[0, 1, 1], [0, 1, 1]], dtype=bool)
    found = calibration(scores, correct, bins=2)  # the median, 0.15, begins the upper bin
    assert found["count"].tolist() == [1, 4]
    assert np.allclose(found["predicted"], [0.05, 0.5625])
    assert np.allclose(found["right"], [0, 0.75])
    assert (found["low"] <= found["right"]).all()
    assert (found["right"] <= found["high"]).all()


def test_calibration_bins_hold_equally_many():
    rng = np.random.default_rng(0)
    scores = rng.random((40, 25)) ** 4  # most are small
    found = calibration(scores, rng.random((40, 25)) < scores, bins=10)
    assert found["count"].tolist() == [100] * 10
    assert (np.diff(found["predicted"]) > 0).all()


def test_calibration_interval_is_over_problems_not_solutions():
    """50 solutions of one problem that agree are no more evidence than one."""
    rng = np.random.default_rng(0)
    solved = rng.random(60) < 0.5
    one, fifty = (calibration(np.full((60, s), 0.5), np.tile(solved[:, None], s)) for s in (1, 50))
    assert np.allclose(one["low"], fifty["low"])
    assert np.allclose(one["high"], fifty["high"])
    assert 0.2 < one["high"][0] - one["low"][0] < 0.3  # two times 1.96 standard errors of a share of 60


def test_calibration_error_by_hand():
    assert calibration_error([0.95, 0.95, 0.05, 0.05], [True, True, False, False]) == pytest.approx(0.05)
    assert calibration_error([0.9, 0.9, 0.2], [True, False, False]) == pytest.approx((2 * 0.4 + 0.2) / 3)
    assert calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert np.isnan(calibration_error([], []))


def test_steps_count_up_to_the_first_wrong_one():
    scores = [[0.9, 0.8], [0.7, 0.3, 0.6], [], [0.2]]
    right = [[True, True], [True, False, False], [], [False]]
    values, truth = until_error(scores, right)
    assert values.tolist() == [0.9, 0.8, 0.7, 0.3, 0.2]
    assert truth.tolist() == [True, True, True, False, False]


def test_the_first_error_is_found_where_it_is_or_not_at_all():
    scores = [[0.9, 0.5], [0.9, 0.4, 0.1], [0.4, 0.3], [0.9, 0.9], [0.4, 0.9], []]
    right = [[True, True], [True, False, False], [True, False], [True, False], [True, True], []]
    assert finds_error(scores, right).tolist() == [True, True, False, False, False, True]
    assert finds_error(scores, right, threshold=0.2).tolist() == [True, False, False, False, True, True]


def test_no_blur_gives_the_scores_back():
    scores = np.array([[0.0, 0.25, 1.0], [0.5, NAN, 1e-9]])
    found = blurred(scores, 0, np.ones(scores.shape))
    assert np.array_equal(found, scores, equal_nan=True)
    assert found is not scores


def test_a_blurred_score_by_hand():
    """In odds: noise z multiplies score / (1 - score) by e^(sd z)."""
    z = np.array([[0.5, -1.0]])
    odds = np.array([[3.0, 1.0]]) * np.exp(2 * z)  # of the scores 0.75 and 0.5
    assert np.allclose(blurred(np.array([[0.75, 0.5]]), 2.0, z), odds / (1 + odds))


def test_a_blurred_score_stays_a_score():
    scores = np.array([0.0, 1.0, NAN, 1e-12, 0.5] * 400)
    found = blurred(scores, 8.0, np.random.default_rng(0).normal(size=scores.shape))
    assert (found[0::5] > 0.5).any()  # noise reaches a score of 0
    assert (found[1::5] < 0.5).any()  # and one of 1
    assert np.isnan(found[2::5]).all()
    kept = found[~np.isnan(found)]
    assert ((kept >= 0) & (kept <= 1)).all()


def test_noise_is_one_for_equal_texts_and_else_independent():
    texts = ["a", "b", "a", "", "b\ud800"]
    noise = hashed_noise(texts, seed=1)
    assert noise[0] == noise[2]
    assert len(set(noise)) == 4
    assert np.array_equal(hashed_noise(texts[::-1], seed=1), noise[::-1])  # whatever stands beside it
    assert not set(noise) & set(hashed_noise(texts, seed=2))
    assert hashed_noise([], seed=1).shape == (0,)
    assert hashed_noise(["a"], seed=0).tolist() == [pytest.approx(-1.370022189083112)]  # on every machine


def test_noise_is_standard_normal():
    noise = hashed_noise([str(i) for i in range(20_000)], seed=3)
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert (np.abs(noise) < 1.96).mean() == pytest.approx(0.95, abs=0.01)
    other = hashed_noise([str(i) for i in range(20_000)], seed=4)
    assert np.corrcoef(noise, other)[0, 1] == pytest.approx(0, abs=0.03)


def test_blur_wears_the_ranking_down_to_a_coin():
    correct = np.tile(np.arange(100) < 40, (50, 1))
    scores = np.where(correct, 0.9, 0.1)  # logits 2 ln 9 = 4.4 apart
    noise = np.random.default_rng(0).normal(size=scores.shape)
    aucs = [within_auc(blurred(scores, sd, noise), correct).mean() for sd in (0.0, 1.0, 4.0, 100.0)]
    assert aucs[0] == 1.0
    assert aucs == sorted(aucs, reverse=True)
    assert aucs[2] == pytest.approx(0.781, abs=0.02)  # Phi(4.39 / (4 sqrt 2)) of two normal scores
    assert aucs[3] == pytest.approx(0.5, abs=0.03)


def test_blur_refuses_what_it_can_not_blur():
    one = np.array([0.5])
    with pytest.raises(InputError, match="sd is -1"):
        blurred(one, -1, one)
    with pytest.raises(InputError, match="sd is nan"):
        blurred(one, NAN, one)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        blurred(np.array([0.5, 1.2]), 1, np.zeros(2))
    with pytest.raises(InputError, match="one value a score"):
        blurred(one, 1, np.zeros(2))


SIBLINGS = [  # problem, steps, scores, right
    ("p", ["a", "b", "c"], [0.9, 0.8, 0.7], [True, True, True]),
    ("p", ["a", "b", "d"], [0.9, 0.8, 0.7], [True, True, False]),  # a tie at depth 3
    ("p", ["a", "x", "c"], [0.9, 0.3, 0.1], [True, False, False]),  # counts at depth 2, not after its error
    ("p", ["a", "y"], [0.9, 0.95], [True, False]),
    ("p", ["z"], [0.2], [False]),
    ("p", ["a2", "b"], [0.6, 0.5], [True, True]),  # another right parent, whose children are all right
    ("q", ["z", "c"], [0.1, 0.2], [True, False]),  # another problem: its only first step is right
    ("q", [], [], []),
]


def test_siblings_by_hand():
    """At depth 2 the right child (0.8, twice) stands above 0.3 and below 0.95."""
    found = sibling_auc(*zip(*SIBLINGS, strict=True))
    assert {depth: values.tolist() for depth, values in found.items()} == {1: [1.0], 2: [0.5], 3: [0.5]}
    assert list(found) == [1, 2, 3]


def test_siblings_are_weighed_as_they_were_drawn_and_parents_alike():
    rows = [SIBLINGS[0], SIBLINGS[2], SIBLINGS[3], SIBLINGS[3]]  # the wrong 0.95 was drawn twice, 0.3 once
    rows += [("q", steps, scores, right) for _, steps, scores, right in (SIBLINGS[0], SIBLINGS[2])]
    found = sibling_auc(*zip(*rows, strict=True))
    assert {depth: sorted(values) for depth, values in found.items()} == {2: [pytest.approx(1 / 3), 1.0]}


def test_siblings_where_there_are_none():
    assert sibling_auc([], [], [], []) == {}
    assert sibling_auc(*zip(*SIBLINGS[5:], strict=True)) == {}
    with pytest.raises(ValueError, match="zip"):
        sibling_auc(["p"], [["a", "b"]], [[0.5]], [[True, False]])


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="problems x solutions"):
        within_auc(np.zeros((2, 3)), np.zeros((2, 4), dtype=bool))
    with pytest.raises(InputError, match="problems x solutions"):
        pooled_auc(np.zeros(3), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="zip"):
        until_error([[0.5]], [[True, False]])
