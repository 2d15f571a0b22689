"""Votes by hand, and what holds for all of them."""

import pytest

from tts.voting import majority, vanilla, weighted


def test_majority_counts_and_ignores_no_answer():
    assert majority(["a", "b", "b"]) == "b"
    assert majority([None, None, None, "a"]) == "a"


def test_majority_tie_goes_to_the_first_drawn():
    assert majority(["b", "a", "a", "b"]) == "b"
    assert majority(["a", "b", "b", "a"]) == "a"


def test_weighted_sums_scores_of_equal_answers():
    keys = ["a", "b", "b"]
    assert weighted(keys, [0.9, 0.4, 0.4]) == "a"
    assert weighted(keys, [0.9, 0.5, 0.5]) == "b"


def test_weighted_tie_goes_to_the_first_drawn():
    assert weighted(["b", "a", "a"], [0.5, 0.25, 0.25]) == "b"


def test_weighted_with_equal_scores_is_majority():
    keys = ["c", "a", None, "b", "a", "c", "b"]
    assert weighted(keys, [0.3] * 7) == majority(keys) == "c"


def test_vanilla_takes_the_best_solution_that_has_an_answer():
    assert vanilla(["a", "b", "b"], [0.9, 0.5, 0.8]) == "a"
    assert vanilla([None, "b"], [0.9, 0.1]) == "b"
    assert vanilla(["b", "a"], [0.5, 0.5]) == "b"


@pytest.mark.parametrize("keys", [[], [None], [None, None]])
def test_nothing_to_choose_from(keys):
    scores = [1.0] * len(keys)
    assert majority(keys) is weighted(keys, scores) is vanilla(keys, scores) is None


def test_zero_scores_still_choose_an_answer():
    assert weighted(["a", "b"], [0.0, 0.0]) == vanilla(["a", "b"], [0.0, 0.0]) == "a"


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="shorter"):
        weighted(["a", "b"], [1.0])
