"""A stored search read by another rule, how many of its solutions differ, and which of them won the vote."""

import asyncio
import random
from collections import defaultdict
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, by_last, dice, table, with_sampling

from tts.analysis.diversity import as_dvts, best_only, distinct, diversity, voted
from tts.analysis.grading import grade
from tts.errors import InputError
from tts.problems import Problem
from tts.strategies import beam_search, dvts
from tts.tree import Search, Solution

MIXED = ("a\n\n", "b\n\n", "cc\n\n", "\n\n", "d$", "ee$", "$")  # steps, blank ones, ends, an end after a blank line


def run(strategy, script, rule=by_hash, **settings):
    return asyncio.run(strategy(PROBLEM, ScriptedPolicy(script), ScriptedScorer(rule), **with_sampling(**settings)))


@pytest.mark.parametrize("n", [1, 3, 4, 8, 18])
@pytest.mark.parametrize("depth", [2, 40])  # 2: trees end with finished children that are not the best
def test_best_only_is_what_a_run_without_siblings_returns(n, depth):
    for seed in range(10):
        stored = run(dvts, dice(*MIXED), n=n, depth=depth, seed=seed)
        assert best_only(stored) == run(dvts, dice(*MIXED), n=n, depth=depth, seed=seed, siblings=False)


def test_best_only_with_lookahead_goes_by_what_ranked_the_steps():
    for seed in range(10):
        stored = run(dvts, dice(*MIXED), n=8, lookahead=1, seed=seed)
        assert best_only(stored) == run(dvts, dice(*MIXED), n=8, lookahead=1, seed=seed, siblings=False)


def in_turn(salt, *steps):
    """The script that draws by what was written and how often before, so the same for every strategy."""
    drawn = defaultdict(int)

    def script(written, seed):
        drawn[written] += 1
        return random.Random(f"{salt}{written}{drawn[written]}").choice(steps)

    return script


@pytest.mark.parametrize("depth", [2, 40])
def test_a_beam_of_one_tree_read_as_dvts_is_what_dvts_does_with_the_same_draws(depth):
    seen = defaultdict(int)
    for salt in range(200):
        settings = {"n": 4, "depth": depth, "max_tokens": 30}
        beam = run(beam_search, in_turn(salt, *MIXED), **settings)
        read, expected = as_dvts(beam), run(dvts, in_turn(salt, *MIXED), **settings)
        assert [solution for solution in beam.solutions if solution in read.solutions] == read.solutions
        first = min((len(solution.path) for solution in beam.solutions), default=0)
        if not beam.solutions or first in (len(expected.solutions[0].path) if expected.solutions else 0, depth + 1):
            assert read.solutions == expected.solutions
            seen["same draws to the end", len(read.solutions) < len(beam.solutions)] += 1
        else:  # DVTS forgot what finished first; the draws part there
            assert all(len(solution.path) > first for solution in read.solutions)
            seen["went on"] += 1
    assert seen["same draws to the end", False] > 10
    if depth > 2:
        assert seen["same draws to the end", True] > 20
        assert seen["went on"] > 20


def test_read_as_dvts_by_hand():
    script = table({"": ["a$", "b\n\n", "c$", "d\n\n"], "d\n\n": ["e$", "f\n\n"], "d\n\nf\n\n": ["g$"]})
    scores = {"a": 0.7, "b": 0.1, "c": 0.3, "d": 0.5, "e": 0.4, "f": 0.4, "g": 0.9}
    beam = run(beam_search, script, by_last(**scores), n=4)
    assert [solution.text for solution in beam.solutions] == ["a", "c", "d\n\ne", "d\n\nf\n\ng"]
    assert [solution.text for solution in as_dvts(beam).solutions] == ["a", "c"]  # a is the best: the tree ends
    for node in beam.nodes:  # d overtakes a; of e and f, equally good, e was drawn first: the tree ends there
        node.value = 0.8 if node.text == "d\n\n" else node.value
    assert [solution.text for solution in as_dvts(beam).solutions] == ["d\n\ne"]


def test_a_beam_of_several_parents_is_no_dvts():
    search = run(beam_search, dice("a\n\n", "b\n\n"), n=4, beam_width=2, depth=2)
    with pytest.raises(InputError, match="N = 4 has several parents"):
        as_dvts(search)


def test_a_beam_without_solutions_has_none_read_as_dvts():
    search = run(beam_search, table({"": ["aaaa"] * 4}), n=4, max_tokens=3)
    assert as_dvts(search).solutions == []


def test_distinct_by_brute_force():
    codes = np.array([[0, 0, 1, 2, -1], [0, 0, 0, 0, 0], [-1, -1, -1, -1, -1]])
    expected = [
        [np.mean([len(set(subset) - {-1}) for subset in combinations(row, n)]) for n in (1, 2, 4, 5)]
        for row in codes.tolist()
    ]
    assert distinct(codes, [1, 2, 4, 5]) == pytest.approx(np.array(expected))


def test_diversity_of_first_steps_solutions_and_answers():
    problems = [Problem(id=f"p{i}", text="Q", answer="1") for i in range(3)]  # nothing came back for the last one
    same = ["a\n\nSo $\\boxed{1}$.", "a\n\nSo $\\boxed{1.0}$.", "a \n\nSo $\\boxed{1}$.", "b\n\nno box"]
    texts = pd.DataFrame({"problem": ["p0"] * 4 + ["p1"], "text": [*same, None], "finish": ["end"] * 4 + ["failed"]})
    graded = grade(texts, problems)
    counts = {kind: values.tolist() for kind, values in diversity(graded, problems).items()}
    assert counts == {"first steps": [[2], [0], [0]], "solutions": [[4], [0], [0]], "answers": [[1], [0], [0]]}
    of_two = diversity(graded[graded.problem == "p0"], problems[:1], [2])
    assert of_two["first steps"] == pytest.approx(np.array([[1.5]]))  # b is in half of the six pairs


def test_the_voted_answer_leads_to_its_solutions():
    texts = ["So $\\boxed{2}$.", "So $\\boxed{1}$.", "no box", "So $\\boxed{1.0}$.", "So $\\boxed{3}$."]
    scores = [[0.9], [0.1, 0.5], [1.0], [0.9, 0.5], []]
    solutions = [
        Solution(text, [text], score, 3, -1.0, "end", (0, i))
        for i, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    assert voted(Search("dvts", "p1", 5, solutions, ["finished"]), PROBLEM, "last") == [(0, 1), (0, 3)]  # 1.0 to 0.9
    assert voted(Search("dvts", "p1", 5, solutions, ["finished"]), PROBLEM, "min") == [(0, 0)]  # 0.6 to 0.9
    assert voted(Search("dvts", "p1", 5, solutions[2:3], ["finished"]), PROBLEM, "last") == []
    assert voted(Search("dvts", "p1", 5, [], ["tokens"]), PROBLEM, "last") == []
