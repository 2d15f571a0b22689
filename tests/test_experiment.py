"""An experiment of scripted models: what a sweep makes and keeps, and its accuracies by hand."""

import asyncio
from functools import partial

import numpy as np
import pandas as pd
import pytest
from fakes import ScriptedPolicy, ScriptedScorer, by_hash, dice

import tts.experiment
from tts.analysis.curves import mean_vote, vote
from tts.analysis.grading import grade, solutions_frame
from tts.errors import InputError
from tts.experiment import Sweep, greedy_baselines, samples_of, searches_of, seeds_to, sweep
from tts.policy import Sampling
from tts.problems import Problem
from tts.results import collect
from tts.results.store import Store
from tts.strategies import beam_search, dvts

PROBLEMS = [Problem(id="p1", text="Q", answer="1"), Problem(id="p2", text="R", answer="2")]
SHORT = Sampling(max_tokens=60)


def test_seeds_to():
    assert seeds_to(256, seed=3, n_seeds=3, seeds_n_max=64) == {3: 256, 4: 64, 5: 64}
    assert seeds_to(16, seed=0, n_seeds=2, seeds_n_max=64) == {0: 16, 1: 16}
    assert seeds_to(16, seed=0, n_seeds=1, seeds_n_max=64) == {0: 16}
    for name in ("n_seeds", "seeds_n_max"):
        with pytest.raises(InputError, match=f"{name} is 0: it must be a whole number, 1 or more"):
            seeds_to(16, seed=0, **{"n_seeds": 2, "seeds_n_max": 4} | {name: 0})
    with pytest.raises(InputError, match="n_max is 0"):
        seeds_to(0, seed=0, n_seeds=1, seeds_n_max=4)


# --- A sweep's accuracies by hand -----------------------------------------------------------------


def solutions(**texts):
    """Graded solutions with their step scores: problem -> (answer, scores) pairs."""
    rows = [
        {"problem": name, "index": i, "text": f"\\boxed{{{answer}}}", "finish": "end", "scores": scores}
        for name, pairs in texts.items()
        for i, (answer, scores) in enumerate(pairs)
    ]
    return grade(pd.DataFrame(rows, columns=["problem", "index", "text", "finish", "scores"]), PROBLEMS)


@pytest.fixture
def by_hand():
    """Two seeds, to N = 16 and to N = 4; scores are reduced by their minimum."""
    long = solutions(p1=[("1", [0.9, 1.0])] + [("3", [0.05, 1.0])] * 15, p2=[("2", [0.1])] * 15 + [("5", [1.0, 0.9])])
    short = solutions(p1=[("1", [0.5])] * 4, p2=[("5", [0.5])] * 4)
    first = solutions(p1=[("1", [0.9]), ("3", [0.2]), ("3", [0.2])])  # p2's search returned nothing
    second = solutions(p1=[("3", [0.9])], p2=[("2", [0.1])])
    last = solutions(p1=[("1", [0.1]), ("3", [0.2, 1.0])], p2=[("2", [0.5])])
    return Sweep(
        problems=PROBLEMS,
        seeds={0: 16, 1: 4},
        reduction="min",
        samples=[long, short],
        aside=solutions(
            p1=[("1", [0.5, 1.0]), ("1", [0.7]), ("1", [0.6]), ("3", [0.2])],
            p2=[("5", [0.0, 1.0]), ("5", [0.2]), ("2", [0.2]), ("7", [])],
        ),
        solutions={"beam_search": {4: [first, second], 16: [last]}},
        searches={},
    )


def test_points_by_hand(by_hand):
    assert by_hand.ns == [1, 2, 4, 8, 16]
    assert by_hand.budgets == [4, 16]


def test_curves_by_hand(by_hand):
    """At 16 the first seed alone: 1 against fifteen 3s of 0.05, and fifteen 2s of 0.1 against one 5 of 0.9."""
    assert {name: curve[:, -1].tolist() for name, curve in by_hand.curves.items()} == {
        "majority": [0.0, 1.0],
        "best_of_n_vanilla": [1.0, 0.0],
        "best_of_n_weighted": [1.0, 1.0],
    }
    assert np.array_equal(by_hand.curve("vanilla"), by_hand.curves["best_of_n_vanilla"])
    # At 4 the second seed counts half, and the first as often as its one 1 is among the four.
    assert by_hand.curve("vanilla")[0, 2] == pytest.approx((4 / 16 + 1) / 2, abs=0.05)
    assert by_hand.curve("majority")[1, 2] == 0.5


def test_votes_of_searches_by_hand(by_hand):
    assert by_hand.vote("beam_search").tolist() == [[0.5, 0.0], [0.5, 1.0]]  # 0.9 against 0.4; at 16: 0.1 against 0.2
    assert by_hand.vote("beam_search", "majority")[:, 0].tolist() == [0.0, 0.5]
    assert by_hand.vote("beam_search", "vanilla").tolist() == [[0.5, 0.0], [0.5, 1.0]]


def test_a_vote_is_taken_once(by_hand, monkeypatch):
    taken = []
    monkeypatch.setattr(tts.experiment, "mean_vote", lambda *a, **b: taken.append(a[2]) or mean_vote(*a, **b))
    for _ in range(2):
        assert np.array_equal(by_hand.curve("majority"), by_hand.curves["majority"])
        assert np.array_equal(by_hand.vote("beam_search"), by_hand.accuracy["beam_search"])
        assert not np.array_equal(by_hand.vote("beam_search", "majority"), by_hand.vote("beam_search"))
    assert sorted(taken) == ["majority"] * 3 + ["vanilla"] + ["weighted"] * 3  # three curves, two budgets twice


def test_coverage_by_hand(by_hand):
    assert by_hand.coverage("beam_search").tolist() == [[0.5, 1.0], [0.5, 1.0]]
    independent = by_hand.coverage()
    assert np.allclose(independent[0], [(1 / 16 + 1) / 2, (2 / 16 + 1) / 2, (4 / 16 + 1) / 2, 8 / 16, 1.0])
    assert np.allclose(independent[1, 3:], [1.0, 1.0])


def test_accuracy_has_all_methods_at_the_budgets(by_hand):
    assert list(by_hand.accuracy) == ["majority", "best_of_n_vanilla", "best_of_n_weighted", "beam_search"]
    for name, curve in by_hand.curves.items():
        assert np.array_equal(by_hand.accuracy[name], curve[:, [2, 4]])
    stacked = by_hand.stack(["beam_search", "majority"])
    assert np.array_equal(stacked, [by_hand.vote("beam_search"), by_hand.accuracy["majority"]])


def test_difficulty_by_hand(by_hand):
    assert by_hand.oracle.tolist() == [0.75, 0.25]
    assert np.allclose(by_hand.predicted, [(0.5 + 0.7 + 0.6 + 0.2) / 4, (0.0 + 0.2 + 0.2 + 0.0) / 4])


# --- A sweep of scripted models: steps "a" or "b", an answer in the last one ----------------------


class Closing:
    provenance, prompt_settings = {"engine": "script"}, {}
    closed = False

    async def close(self):
        self.closed = True


class Policy(Closing, ScriptedPolicy):
    def __init__(self, script=None):
        super().__init__(script or dice("a\n\n", "b\n\n", "\\boxed{1}$", "\\boxed{2}$"))


class Scorer(Closing, ScriptedScorer):
    def __init__(self):
        super().__init__(by_hash)


def swept(store, *, policy=None, prm=None, n_max=16, seed=5, n_seeds=2, seeds_n_max=4, **changes):
    seeds = seeds_to(n_max, seed=seed, n_seeds=n_seeds, seeds_n_max=seeds_n_max)
    settings = {"n_difficulty": 3, "sampling": SHORT} | changes
    return asyncio.run(sweep(PROBLEMS, policy or Policy(), prm or Scorer(), store, seeds=seeds, **settings))


def test_a_sweep_is_the_mean_of_its_seeds_each_as_far_as_it_goes(tmp_path):
    store = Store(tmp_path)
    both = swept(store)
    assert (both.ns, both.budgets) == ([1, 2, 4, 8, 16], [4, 16])
    assert [len(table) for table in both.samples] == [2 * 16, 2 * 4]
    assert sorted(set(both.aside["index"])) == [16, 17, 18]
    one, other = swept(store, n_seeds=1), swept(store, n_seeds=1, seed=6, n_max=4)
    for name in ("majority", "best_of_n_vanilla", "best_of_n_weighted"):
        assert np.allclose(both.curves[name][:, :3], (one.curves[name][:, :3] + other.curves[name]) / 2)
        assert np.allclose(both.curves[name][:, 3:], one.curves[name][:, 3:])
    for name in ("beam_search", "dvts", "dvts_best"):
        assert np.allclose(both.accuracy[name][:, 0], (one.accuracy[name][:, 0] + other.accuracy[name][:, 0]) / 2)
        assert np.allclose(both.accuracy[name][:, 1], one.accuracy[name][:, 1])
    assert np.array_equal(both.oracle, one.oracle)
    assert np.array_equal(both.predicted, one.predicted)


def test_a_sweep_draws_once_and_closes_its_models(tmp_path):
    first = swept(Store(tmp_path))
    policy, prm = Policy(), Scorer()
    again = swept(Store(tmp_path), policy=policy, prm=prm)
    assert (policy.requests, prm.scored) == ([], [])
    assert policy.closed
    assert prm.closed
    assert all(np.array_equal(again.accuracy[name], values) for name, values in first.accuracy.items())


def test_a_sweep_searches_as_collect_does_and_only_what_is_asked_for(tmp_path):
    alone = swept(Store(tmp_path / "one"), strategies=(beam_search,), n_seeds=1)
    assert set(alone.accuracy) == {"majority", "best_of_n_vanilla", "best_of_n_weighted", "beam_search"}
    sampling = Sampling(max_tokens=60, seed=5)
    run = collect.search(PROBLEMS, beam_search, Policy(), Scorer(), Store(tmp_path / "two"), n=16, sampling=sampling)
    found = asyncio.run(run)
    assert alone.searches["beam_search"][16] == found
    by_hand = vote(grade(solutions_frame(found, PROBLEMS), PROBLEMS), PROBLEMS, "weighted")
    assert np.array_equal(alone.accuracy["beam_search"][:, [1]], by_hand)


def test_a_sweep_passes_its_settings_on(tmp_path):
    settings = {"beam_width": 2, "depth": 3, "lookahead": 1, "drop_duplicates": True}
    bound = [partial(strategy, **settings) for strategy in (beam_search, dvts)]
    made = swept(Store(tmp_path / "one"), n_max=4, n_seeds=1, seed=0, strategies=bound, sampling=SHORT)
    for strategy in bound:
        alone = [asyncio.run(strategy(problem, Policy(), Scorer(), n=4, sampling=SHORT)) for problem in PROBLEMS]
        assert made.searches[strategy.func.__name__][4] == alone


def test_dvts_best_is_dvts_with_the_best_child_of_each_tree_alone(tmp_path):
    made = swept(Store(tmp_path), n_seeds=1, strategies=(dvts,))
    assert list(made.solutions) == ["dvts", "dvts_best"]
    assert list(made.searches) == ["dvts"], "one search, read twice"
    for n in made.budgets:
        [table] = made.solutions["dvts_best"][n]
        sampling = Sampling(max_tokens=60, seed=5)
        for problem in PROBLEMS:
            alone = asyncio.run(dvts(problem, Policy(), Scorer(), n=n, siblings=False, sampling=sampling))
            assert table[table.problem == problem.id].text.tolist() == [found.text for found in alone.solutions]
        assert len(table) < len(made.solutions["dvts"][n][0])


def test_trees_can_be_forgotten(tmp_path):
    with_trees = swept(Store(tmp_path))
    without = swept(Store(tmp_path), keep_trees=False)
    assert {name: list(found) for name, found in with_trees.searches.items()} == {
        "beam_search": [4, 16],
        "dvts": [4, 16],
    }
    assert without.searches == {}
    for name, values in with_trees.accuracy.items():
        assert np.array_equal(without.accuracy[name], values)


def test_searches_may_end_before_the_samples(tmp_path):
    whole, less = (swept(Store(tmp_path), strategies=(dvts,), search_n_max=n) for n in (0, 4))
    assert (less.ns, less.budgets) == (whole.ns, [4])
    assert list(less.searches["dvts"]) == [4]
    for name, values in whole.accuracy.items():
        assert np.array_equal(less.accuracy[name], values[:, :1])
    assert swept(Store(tmp_path), strategies=(), search_n_max=256).budgets == whole.budgets
    with pytest.raises(InputError, match="search_n_max is -1"):
        swept(Store(tmp_path), search_n_max=-1)


def test_no_samples_aside(tmp_path):
    made = swept(Store(tmp_path), n_difficulty=0, n_max=4, strategies=())
    assert made.aside.empty
    assert [len(table) for table in made.samples] == [8, 8]
    with pytest.raises(InputError, match="n_difficulty is -1"):
        swept(Store(tmp_path), n_difficulty=-1)


def test_samples_of_each_seed_are_graded_and_with_a_prm_scored(tmp_path):
    def drawn(prm):
        store = Store(tmp_path)
        return asyncio.run(samples_of(PROBLEMS, Policy(), prm, store, seeds={5: 4, 6: 2}, sampling=SHORT))

    plain, scored = drawn(None), drawn(Scorer())
    assert [len(table) for table in plain] == [8, 4]
    for one, other in zip(plain, scored, strict=True):
        assert other.drop(columns=["scores", "unscored"]).equals(one)
        assert (other.scores.map(len) > 0).all()
    assert plain[0].text.tolist()[:2] != plain[1].text.tolist()[:2]


def test_searches_of_every_seed_that_goes_so_far(tmp_path):
    def found(n):
        run = searches_of(PROBLEMS, dvts, Policy(), Scorer(), Store(tmp_path), n=n, seeds={5: 16, 6: 4}, sampling=SHORT)
        return asyncio.run(run)

    assert [len(found(n)) for n in (4, 16, 64)] == [2, 1, 0]
    assert all(search.n == 16 for search in found(16)[0])
    assert found(4)[0] != found(4)[1]
    assert [search.problem for search in found(4)[1]] == ["p1", "p2"]


def test_greedy_baselines_are_one_solution_a_problem(tmp_path):
    greedy = Policy(lambda written, seed: "\\boxed{1}$" if seed is None else "no")
    found = asyncio.run(greedy_baselines(PROBLEMS, [greedy], Store(tmp_path), sampling=Sampling(max_tokens=60)))
    assert found["scripted"].correct.tolist() == [True, False]
    assert greedy.closed
    assert asyncio.run(greedy_baselines(PROBLEMS, [], Store(tmp_path), sampling=Sampling(max_tokens=60))) == {}
