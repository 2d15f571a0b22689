"""Reductions of step scores: hand-worked values, bounds, the empty list, unknown names."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.errors import InputError
from tts.reductions import REDUCTIONS, reduce_scores


@pytest.mark.parametrize(
    ("how", "expected"), [("last", 0.5), ("min", 0.25), ("prod", 0.1), ("mean", 0.5166666666666667)]
)
def test_by_hand(how, expected):
    assert math.isclose(reduce_scores([0.8, 0.25, 0.5], how), expected)


@pytest.mark.parametrize("how", REDUCTIONS)
def test_no_steps_is_the_lowest_score(how):
    assert reduce_scores([], how) == 0.0


@pytest.mark.parametrize("how", REDUCTIONS)
def test_one_step_is_its_own_score(how):
    assert reduce_scores([0.7], how) == 0.7


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_bounds(scores):
    reduced = {how: reduce_scores(scores, how) for how in REDUCTIONS}
    assert all(type(score) is float and 0 <= score <= 1 + 1e-12 for score in reduced.values())
    assert reduced["prod"] <= reduced["min"] <= min(reduced["last"], reduced["mean"] + 1e-12)


@pytest.mark.parametrize("how", REDUCTIONS)
def test_arrays_and_tuples_give_a_plain_float(how):
    value = reduce_scores(np.array([0.5, 0.25]), how)
    assert type(value) is float
    assert value == reduce_scores((0.5, 0.25), how)


def test_unknown_names_list_the_choices():
    with pytest.raises(InputError, match="reduction is 'max': choose one of last, min, prod, mean"):
        reduce_scores([0.5], "max")
    with pytest.raises(InputError, match="choose one of"):
        reduce_scores([], "Last")
