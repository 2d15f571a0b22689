"""Quintiles by hand and against sorting."""

import numpy as np
import pytest

from tts.analysis.difficulty import by_quintile, edges, expected_misplaced, power, quintiles, step_success
from tts.compute_optimal import place
from tts.errors import InputError


def test_quintiles_by_hand():
    ease = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.8, 0.2, 0.6, 0.4, 1.0])
    assert quintiles(ease).tolist() == [1, 5, 3, 4, 2, 2, 5, 3, 4, 1]


@pytest.mark.parametrize("count", [5, 6, 7, 9, 11, 200])
def test_quintiles_are_as_equal_as_can_be(count):
    sizes = np.bincount(quintiles(np.random.default_rng(count).random(count)))[1:]
    assert sizes.sum() == count
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(sizes) <= 0).all()  # the easier ones are larger


def test_ties_are_drawn_by_lot_and_only_they():
    ease = np.array([1.0] * 10 + [0.5] * 5 + [0.0] * 10)
    found = [tuple(quintiles(ease, seed=seed)) for seed in range(40)]
    assert len(set(found)) > 1
    for row in found:
        assert set(row[:10]) == {1, 2}
        assert set(row[10:15]) == {3}
        assert set(row[15:]) == {4, 5}
    chosen = np.mean([np.array(row[:10]) == 1 for row in found], axis=0)
    assert chosen.min() > 0.2  # nobody is first because of the order of the data
    assert chosen.max() < 0.8


def test_edges_place_the_problems_that_they_were_made_from():
    ease = np.random.default_rng(0).random(50)
    quintile = quintiles(ease)
    found = edges(ease, quintile)
    assert (np.diff(found) < 0).all()
    assert [place(value, found) for value in ease] == quintile.tolist()
    assert (place(2.0, found), place(-1.0, found), place(found[0], found)) == (1, 5, 1)


def test_too_few_problems_and_no_difficulty():
    with pytest.raises(InputError, match="n_problems: 4 problems"):
        quintiles(np.arange(4))
    with pytest.raises(InputError, match="have no difficulty"):
        quintiles(np.array([1, 2, 3, 4, np.nan]))


def test_more_samples_misplace_fewer():
    rate = np.random.default_rng(1).random(100)
    few, many = (expected_misplaced(rate, samples, draws=50) for samples in (4, 1024))
    assert few > many
    assert expected_misplaced(np.repeat([0.0, 1.0], 50), 8) == 0  # nothing is uncertain: the lots are the same


def test_accuracy_by_quintile():
    quintile = np.repeat([1, 2, 3, 4, 5], 2)
    accuracy = {"majority": np.array([[1, 0.5]] * 2 + [[0, 1]] * 8), "dvts": np.zeros((10, 2))}
    found = by_quintile(accuracy, quintile, [4, 16])
    assert len(found) == 5 * 2 * 2
    first = found[(found.quintile == 1) & (found.method == "majority")]
    assert first.accuracy.tolist() == [1.0, 0.5]
    assert first.problems.tolist() == [2, 2]
    with pytest.raises(InputError, match="dvts: accuracy of 3 problems"):
        by_quintile({"dvts": np.zeros((3, 2))}, quintile, [4, 16])
    with pytest.raises(InputError, match="a quintile has no problems"):
        by_quintile({"dvts": np.zeros((3, 2))}, np.array([1, 2, 3]), [4, 16])


def test_success_of_a_step_by_hand():
    """Of p's four samples three are right at step 1, and of these two at step 2; nobody gets to a third one of q."""
    right = [[True, True, True], [True, True], [True, False, False], [False, False], [True, False], []]
    found = step_success(["p", "p", "p", "p", "q", "q"], right)
    assert [tuple(row) for row in found.itertuples(index=False)] == [
        ("p", 1, 4, 0.75),
        ("p", 2, 3, pytest.approx(2 / 3)),
        ("p", 3, 1, 1.0),
        ("q", 1, 1, 1.0),
        ("q", 2, 1, 0.0),
    ]
    assert list(found) == ["problem", "step", "reached", "success"]
    assert step_success([], []).empty


def test_power_by_hand():
    """Eight problems a quintile, half of them +0.5 and half -0.5; with +1 and -1 beside them the variance is 0.4."""
    quintile = np.repeat([1, 2, 3, 4, 5], 8)
    found = power(np.tile([0.5, -0.5], 20), quintile, effect=0.1, level=0.95, chance=0.5)
    assert found.problems.tolist() == found.differ.tolist() == [8] * 5
    assert found.error.to_numpy() == pytest.approx(0.2)  # sqrt(0.4 / 10)
    assert found.detectable.to_numpy() == pytest.approx(1.959964 * 0.2)  # at chance 0.5 the interval's half width
    assert found.needed.tolist() == [154] * 5  # 1.96^2 x 0.4 / 0.1^2 = 153.7
    assert (power(np.tile([0.5, -0.5], 20), quintile).detectable > found.detectable).all()
    assert (power(np.zeros(40), quintile).error > 0).all()  # equal differences prove nothing
    assert power(np.array([0.25, 1e-12, 0, -0.5, 0] * 5), np.repeat([1, 2, 3, 4, 5], 5)).differ.tolist() == [2] * 5
    with pytest.raises(InputError, match="quintile 5 has no problems"):
        power(np.zeros(4), np.array([1, 2, 3, 4]))


def test_power_against_simulation():
    """Differences drawn around the detectable one are found about as often as promised."""
    rng = np.random.default_rng(0)
    quintile = np.repeat([1, 2, 3, 4, 5], 100)
    shift = power(rng.normal(0, 0.3, 500), quintile).detectable.mean()
    drawn = rng.normal(shift, 0.3, (4000, 100))
    found = drawn.mean(axis=1) > 1.96 * drawn.std(axis=1) / 10
    assert 0.78 < found.mean() < 0.92  # the problem more each way makes it a little more
