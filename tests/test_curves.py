"""The vectorised curves against enumeration of every order, votes of graded solutions and means over seeds by hand."""

from itertools import combinations, permutations
from math import comb

import numpy as np
import pandas as pd
import pytest

from tts.analysis.curves import (
    coverage,
    intervals,
    mean_coverage,
    mean_vote,
    pass_at_k,
    powers_of_four,
    powers_of_two,
    vote,
    vote_curve,
)
from tts.analysis.grading import grade
from tts.errors import InputError
from tts.problems import Problem
from tts.voting import majority, vanilla, weighted

PROBLEMS = [Problem(id="p1", text="Q", answer="1"), Problem(id="p2", text="R", answer="2")]


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


def one_by_one(codes, gold, ns, rule, scores, draws):
    """vote_curve as a plain loop over the rules of tts.voting."""
    rng = np.random.default_rng(0)
    choose = {"majority": lambda keys, _: majority(keys), "weighted": weighted, "vanilla": vanilla}[rule]
    right = np.zeros((len(codes), len(ns)))
    for _ in range(draws):
        for p, order in enumerate(rng.random(codes.shape).argsort(axis=1)):
            keys = [None if code < 0 else code for code in codes[p, order].tolist()]
            chosen = [choose(keys[:n], scores[p, order][:n].tolist()) for n in ns]
            right[p] += [answer == gold[p] for answer in chosen]
    return right / draws


@pytest.mark.parametrize("rule", ["majority", "weighted", "vanilla"])
@pytest.mark.parametrize("answers", [0, 1, 4, 300])
def test_vote_curve_is_the_plain_loop_to_the_last_bit(rule, answers):
    """Tenths don't add exactly, so that the order in which scores are added can settle a tie; 300 fits no byte."""
    rng = np.random.default_rng(2)
    codes = rng.integers(-1, answers, size=(9, 300 if answers == 300 else 7))
    scores = rng.integers(0, 11, size=codes.shape) / 10
    gold = np.array([0, 0, 0, 0, 1, 2, 3, -2, -2])
    ns = [1, 2, 5, codes.shape[1]]
    assert np.array_equal(
        vote_curve(codes, gold, ns, rule=rule, scores=scores, draws=20),
        one_by_one(codes, gold, ns, rule, scores, 20),
    )


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


# --- From graded solutions ------------------------------------------------------------------------


def solutions(**texts):
    """Graded samples with one score each: problem -> (answer, score) pairs."""
    rows = [
        {"problem": name, "index": i, "text": f"\\boxed{{{answer}}}", "finish": "end", "scores": [score]}
        for name, pairs in texts.items()
        for i, (answer, score) in enumerate(pairs)
    ]
    return grade(pd.DataFrame(rows, columns=["problem", "index", "text", "finish", "scores"]), PROBLEMS)


def test_votes_by_hand():
    graded = solutions(p1=[("1", 0.9), ("3", 0.5), ("3", 0.3)], p2=[("5", 0.1), ("2", 0.2), ("7", 0.15)])
    assert vote(graded, PROBLEMS, "weighted").tolist() == [[1.0], [1.0]]  # 0.9 against 0.8; 0.2 is the largest
    assert vote(graded, PROBLEMS, "majority")[0].tolist() == [0.0]
    assert vote(graded, PROBLEMS, "vanilla", [3]).tolist() == [[1.0], [1.0]]
    assert coverage(graded, PROBLEMS, [1, 3]).tolist() == [[pytest.approx(1 / 3), 1.0]] * 2
    assert coverage(graded, PROBLEMS).tolist() == [[1.0], [1.0]]


def test_a_problem_without_solutions_is_wrong():
    graded = solutions(p2=[("2", 0.5)])
    assert vote(graded, PROBLEMS, "weighted").tolist() == [[0.0], [1.0]]
    assert coverage(graded, PROBLEMS).tolist() == [[0.0], [1.0]]
    assert vote(solutions(), PROBLEMS, "weighted").tolist() == [[0.0], [0.0]]


def test_seeds_are_averaged_within_each_problem_and_each_counts_as_far_as_it_goes():
    """One seed with four samples of each problem and two with one: from n = 2 on only the first has points."""
    long = solutions(p1=[("1", 0.5)] * 4, p2=[("2", 0.5), ("5", 0.5), ("5", 0.5), ("5", 0.5)])
    short = solutions(p1=[("3", 0.5)], p2=[("2", 0.5)])
    for tables in ([long, short, short], [short, long, short]):
        found = mean_vote(tables, PROBLEMS, "weighted", [1, 2, 4])
        assert np.allclose(found[0], [4 / 6, 1, 1])  # the seed with four samples counts four times
        assert found[1, 2] == 0.0
        assert np.allclose(mean_coverage(tables, PROBLEMS, [1, 2, 4]), [[4 / 6, 1, 1], [3 / 6, 1 / 2, 1]])
    # Without ns: all that each seed's search returned, one point each.
    assert np.allclose(mean_vote([long, short, short], PROBLEMS, "majority"), [[1 / 3], [2 / 3]])
    assert np.allclose(mean_coverage([long, short, short], PROBLEMS), [[1 / 3], [1]])


def test_seeds_of_other_lengths_weigh_as_their_samples_do():
    """pass@1 is then the share of right ones among the samples of all seeds, however they are divided."""
    rng = np.random.default_rng(0)
    right = rng.random((2, 64)) < [[0.2], [0.7]]
    drawn = {f"p{i + 1}": [(str(i + 1) if one else "0", 0.5) for one in row] for i, row in enumerate(right)}
    ends = [0, 40, 44, 64]
    tables = [
        solutions(**{name: all_of[a:b] for name, all_of in drawn.items()})
        for a, b in zip(ends[:-1], ends[1:], strict=True)
    ]
    assert np.allclose(mean_coverage(tables, PROBLEMS, [1])[:, 0], right.mean(axis=1))


def test_intervals_are_rows_with_the_n_of_each_point():
    values = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    table = intervals({"a": (values, [4, 16]), "b": (values[:, :1], [1])})
    assert table.columns.tolist() == ["method", "n", "accuracy", "low", "high"]
    assert table[["method", "n", "accuracy"]].to_numpy().tolist() == [["a", 4, 0.5], ["a", 16, 1.0], ["b", 1, 0.5]]
    assert table.low[1] == table.high[1] == 1.0
    assert intervals({}).empty
