"""Curves over N from graded solutions: votes by hand, seeds nested in problems, and a sweep of scripted models."""

import asyncio

import numpy as np
import pandas as pd
import pytest
from fakes import ScriptedPolicy, ScriptedScorer, by_hash, dice
from scipy import stats

from tts.results import collect
from tts.analysis.curves import coverage, intervals, over_seeds, seeds_to, vote
from tts.errors import InputError
from tts.analysis.grading import grade, returned
from tts.problems import Problem
from tts.analysis.intervals import mean_interval
from tts.results.store import Store
from tts.strategies import beam_search, dvts
from tts.experiment import greedy_baselines, search_accuracy, searches_of, sweep

PROBLEMS = [Problem(id="p1", text="Q", answer="1"), Problem(id="p2", text="R", answer="2")]


def solutions(**texts):
    """Graded samples with one score each: problem -> (answer, score) pairs."""
    rows = [
        {"problem": name, "index": i, "text": f"\\boxed{{{answer}}}", "finish": "end", "scores": [score]}
        for name, pairs in texts.items()
        for i, (answer, score) in enumerate(pairs)
    ]
    return grade(pd.DataFrame(rows, columns=["problem", "index", "text", "finish", "scores"]), PROBLEMS)


def test_seeds_to():
    assert seeds_to(256, seed=3, n_seeds=3, seeds_n_max=64) == {3: 256, 4: 64, 5: 64}
    assert seeds_to(16, seed=0, n_seeds=2, seeds_n_max=64) == {0: 16, 1: 16}
    assert seeds_to(16, seed=0, n_seeds=1, seeds_n_max=64) == {0: 16}
    for wrong in ({"n_seeds": 0, "seeds_n_max": 4}, {"n_seeds": 2, "seeds_n_max": 0}):
        with pytest.raises(InputError, match="is 0: it must be 1 or more"):
            seeds_to(16, seed=0, **wrong)


def test_over_seeds_counts_each_seed_as_far_as_it_goes():
    long, short = np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]]), np.array([[1.0], [0.0]])
    assert over_seeds([long, short, short]).tolist() == [[2 / 3, 1.0, 0.5], [1 / 3, 1.0, 1.0]]
    assert over_seeds(iter([long])).tolist() == long.tolist()


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


def test_intervals_are_rows_with_the_n_of_each_point():
    values = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    table = intervals({"a": (values, [4, 16]), "b": (values[:, :1], [1])})
    assert table.columns.tolist() == ["method", "n", "accuracy", "low", "high"]
    assert table[["method", "n", "accuracy"]].to_numpy().tolist() == [["a", 4, 0.5], ["a", 16, 1.0], ["b", 1, 0.5]]
    assert table.low[1] == table.high[1] == 1.0
    assert intervals({}).empty


# --- A sweep of scripted models: steps "a", "1" or "2", an answer in the last one ---------------------------------


def policy():
    return ClosingPolicy(dice("a\n\n", "b\n\n", "\\boxed{1}$", "\\boxed{2}$"))


class Closing:
    provenance, prompt_settings = {"engine": "script"}, {}

    async def close(self):
        pass


class ClosingPolicy(Closing, ScriptedPolicy):
    pass


class ClosingScorer(Closing, ScriptedScorer):
    pass


def swept(store, **changes):
    settings = {"n_max": 16, "n_difficulty": 3, "n_seeds": 2, "seeds_n_max": 4, "max_tokens": 60, "seed": 5} | changes
    return asyncio.run(sweep(PROBLEMS, policy(), ClosingScorer(by_hash), store, **settings))


def test_a_sweep_is_the_mean_of_its_seeds_each_as_far_as_it_goes(tmp_path):
    store = Store(tmp_path)
    both = swept(store)
    assert (both.ns, both.budgets) == ([1, 2, 4, 8, 16], [4, 16])
    assert len(both.graded) == 2 * 16
    assert sorted(set(both.aside["index"])) == [16, 17, 18]
    one, other = swept(store, n_seeds=1), swept(store, n_seeds=1, seed=6, n_max=4)
    for name in ("majority", "best_of_n_vanilla", "best_of_n_weighted"):
        assert np.allclose(both.curves[name][:, :3], (one.curves[name][:, :3] + other.curves[name]) / 2)
        assert np.allclose(both.curves[name][:, 3:], one.curves[name][:, 3:])
    for name in ("beam_search", "dvts"):
        assert np.allclose(both.accuracy[name][:, 0], (one.accuracy[name][:, 0] + other.accuracy[name][:, 0]) / 2)
        assert np.allclose(both.accuracy[name][:, 1], one.accuracy[name][:, 1])
    assert np.array_equal(both.oracle, one.oracle)


def test_a_sweep_searches_as_runs_do_and_only_what_is_asked_for(tmp_path):
    alone = swept(Store(tmp_path / "one"), strategies=(beam_search,), n_seeds=1)
    assert set(alone.accuracy) == {"majority", "best_of_n_vanilla", "best_of_n_weighted", "beam_search"}
    settings = {"n": 16, "seed": 5, "max_tokens": 60}
    store = Store(tmp_path / "two")
    found = asyncio.run(runs.search(PROBLEMS, beam_search, policy(), ClosingScorer(by_hash), store, **settings))
    by_hand = vote(grade(returned(found, PROBLEMS), PROBLEMS), PROBLEMS, "weighted")
    assert np.array_equal(alone.accuracy["beam_search"][:, [1]], by_hand)


def test_searches_of_every_seed_and_budget(tmp_path):
    seeds = {5: 16, 6: 4}
    found = asyncio.run(
        searches_of(
            PROBLEMS,
            dvts,
            policy(),
            ClosingScorer(by_hash),
            Store(tmp_path),
            budgets=[4, 16],
            seeds=seeds,
            max_tokens=60,
        )
    )
    assert {n: len(of_n) for n, of_n in found.items()} == {4: 2, 16: 1}
    assert all(search.n == n for n, of_n in found.items() for one in of_n for search in one)
    assert found[4][0] != found[4][1]
    assert search_accuracy(found, PROBLEMS).shape == (2, 2)


def test_greedy_baselines_are_one_solution_a_problem(tmp_path):
    greedy = ClosingPolicy(lambda written, seed: "\\boxed{1}$" if seed is None else "no")
    found = asyncio.run(greedy_baselines(PROBLEMS, [greedy], Store(tmp_path), max_tokens=60))
    assert found["scripted"].correct.tolist() == [True, False]
    assert asyncio.run(greedy_baselines(PROBLEMS, [], Store(tmp_path), max_tokens=60)) == {}


# --- Intervals over problems, with seeds nested in them -----------------------------------------------------------


def drawn(rng, problems, seeds):
    """Right or wrong for each problem and seed; each problem has a chance of its own, 0.4 on average."""
    chances = rng.beta(0.8, 1.2, size=problems)
    return rng.random((problems, seeds)) < chances[:, None]


def test_with_seeds_nested_in_problems_the_interval_covers_and_with_seeds_as_problems_it_would_not():
    rng = np.random.default_rng(11)
    nested = flat = 0
    for _ in range(400):
        right = drawn(rng, 100, 5).astype(float)
        _, low, high = mean_interval(over_seeds(right.T[..., None]), resamples=400)[:, 0]
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
