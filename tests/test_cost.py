"""What a run costs, in tokens and FLOPs: by hand and against brute force."""

import asyncio

import numpy as np
import pandas as pd
import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, by_last, dice, table

from tts.analysis.cost import Usage, at_cost, by_budget, by_problem, independent, mean_flops, measured, searched
from tts.errors import InputError
from tts.models.flops import Size
from tts.strategies import beam_search, best_of_n

SMALL, LARGE = Size(weights=100, head=10, attention=4), Size(weights=1000, head=20, attention=8)


def test_independent_solutions_by_hand():
    usage = independent(5, [2, 3], policy=SMALL, prm=LARGE)
    assert (usage.decoded, usage.prefilled, usage.scored) == (5, 5, 5 + 2 + 3)
    assert usage.policy_flops == SMALL.flops(5) + SMALL.flops(2, 5, logits=2) + SMALL.flops(3, 5, logits=3)
    assert usage.prm_flops == LARGE.flops(5) + LARGE.flops(2, 5) + LARGE.flops(3, 5)
    without = independent(5, [2, 3], policy=SMALL)
    assert (without.scored, without.prm_flops, without.policy_flops) == (0, 0, usage.policy_flops)


def test_a_search_is_the_sum_of_its_tree():
    policy = ScriptedPolicy(dice("ab\n\n", "c\n\n", "d$"))
    scorer = ScriptedScorer(by_hash)
    search = asyncio.run(beam_search(PROBLEM, policy, scorer, n=8))
    prompt = len(policy.prompt(PROBLEM.text))
    usage = searched(prompt, search, policy=SMALL, prm=LARGE)
    assert usage.decoded == search.generated == sum(node.tokens for node in search.nodes)
    assert usage.prefilled == prompt

    # Brute force: each node's tokens one by one, each seeing the whole path before it.
    tokens = {node.path: node.tokens for node in search.nodes}
    flops = SMALL.flops(prompt)
    for path in tokens:
        past = prompt + sum(tokens[path[:k]] for k in range(2, len(path)))
        flops += sum(SMALL.flops(1, past + i, logits=1) for i in range(tokens[path]))
    assert usage.policy_flops == flops
    distinct = {steps for _, steps in scorer.scored}
    ends = {steps for steps in distinct if not steps[-1].endswith("\n")}
    assert usage.scored == prompt + sum(len(steps[-1]) for steps in distinct) + len(ends)  # and the end-of-turn tokens


def test_a_lookahead_is_decoded_and_scored_too():
    def search(lookahead):
        policy = ScriptedPolicy(dice("ab\n\n", "c\n\n", "d$"))
        found = asyncio.run(beam_search(PROBLEM, policy, ScriptedScorer(by_hash), n=4, lookahead=lookahead))
        return found, searched(2, found, policy=SMALL, prm=LARGE)

    found, ahead = search(2)
    assert ahead.decoded == found.generated > sum(node.tokens for node in found.nodes)
    assert ahead.scored == 2 + found.scored


def test_a_step_that_was_drawn_twice_is_scored_once_or_twice():
    """Of four equal first steps two are kept; with once=False each of them, and each of their ends, is read."""
    search = asyncio.run(
        beam_search(
            PROBLEM,
            ScriptedPolicy(table({"": ["a\n\n"] * 4, "a\n\n": ["b$"] * 4})),
            ScriptedScorer(by_last(a=0.5, b=0.5)),
            n=4,
            beam_width=2,
        )
    )
    once, every = (searched(2, search, policy=SMALL, prm=LARGE, once=once) for once in (True, False))
    assert (once.decoded, every.decoded) == (4 * 3 + 4 * 2,) * 2
    assert (once.scored, every.scored) == (2 + 3 + 2, 2 + 4 * 3 + 4 * 2)
    assert every.prm_flops > once.prm_flops
    assert once.policy_flops == every.policy_flops


def test_mean_over_problems_of_one_search_each():
    """A search that failed costs nothing and counts."""
    search = asyncio.run(
        beam_search(PROBLEM, ScriptedPolicy(dice("a\n\n", "b$")), ScriptedScorer(by_hash), n=2, beam_width=2)
    )
    used = searched(2, search, policy=SMALL, prm=LARGE)
    mean = mean_flops([search, None], {PROBLEM.id: 2}, policy=SMALL, prm=LARGE)
    assert mean == (used.policy_flops + used.prm_flops) / 2


def test_budgets_by_hand():
    """Three samples of one problem, two of them equal: at N = 1 one text is read, at N = 3 two or three."""
    samples = pd.DataFrame({"problem": ["p"] * 3, "text": ["x", "x", "y"], "tokens": [4, 4, 6]})
    found = by_budget(samples, {"p": 2}, [1, 3], policy=SMALL, prm=LARGE)
    texts = {"x": LARGE.flops(4, 2), "y": LARGE.flops(6, 2)}
    prompt, whole = LARGE.flops(2), independent(2, [4, 4, 6], policy=SMALL).policy_flops
    assert found.decoding[3] == whole
    assert found.reading[3] == prompt + texts["x"] + texts["y"]
    assert found.reading_all[3] == prompt + 2 * texts["x"] + texts["y"]
    assert found.reading_all[3] == independent(2, [4, 4, 6], policy=SMALL, prm=LARGE).prm_flops
    assert found.reading[1] == pytest.approx(found.reading_all[1])  # one sample has no copy
    assert found.reading_all[1] == pytest.approx(prompt + (2 * texts["x"] + texts["y"]) / 3)


def test_budgets_of_each_problem():
    """Two problems of two samples: of the first they are equal, of the second not; their mean is by_budget."""
    samples = pd.DataFrame({"problem": ["q", "q", "p", "p"], "text": ["x", "x", "x", "y"], "tokens": [4, 4, 4, 6]})
    each = by_problem(samples, {"p": 2, "q": 3}, [1, 2], policy=SMALL, prm=LARGE)
    assert list(each.index) == [("q", 1), ("q", 2), ("p", 1), ("p", 2)]
    assert each.reading["q", 2] == each.reading["q", 1] == LARGE.flops(3) + LARGE.flops(4, 3)
    assert each.reading["p", 2] == LARGE.flops(2) + LARGE.flops(4, 2) + LARGE.flops(6, 2)
    assert each.decoding["q", 2] == SMALL.flops(3) + 2 * SMALL.flops(4, 3, logits=4)
    mean = by_budget(samples, {"p": 2, "q": 3}, [1, 2], policy=SMALL, prm=LARGE)
    assert mean.reading[2] == (each.reading["q", 2] + each.reading["p", 2]) / 2


def test_accuracy_at_a_cost():
    """Between 10 and 1,000 the middle is 100; what is beyond the last point stays there, what is below was not run."""
    values = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    assert at_cost(values, [10, 1000], 100) == pytest.approx([0.5, 0.5, 0.5])
    assert at_cost(values, [10, 1000], 10 * 100**0.25) == pytest.approx([0.25, 0.5, 0.75])
    for cost, column in ((10, 0), (1000, 1), (5000, 1)):
        assert at_cost(values, [10, 1000], cost) == pytest.approx(values[:, column])
    assert np.isnan(at_cost(values, [10, 1000], 9)).all()
    assert at_cost(values[:, :1], [10], 20) == pytest.approx(values[:, 0]), "a curve may be one point"
    for costs in ([10], [10, 10], [20, 10]):
        with pytest.raises(InputError, match="give one for each of 2 points, rising"):
            at_cost(values, costs, 15)


def test_sums_differences_and_records():
    one, two = Usage(1, 2, 3, 4, 5, 6), Usage(10, 20, 30, 40, 50, 60)
    assert one + two == Usage(11, 22, 33, 44, 55, 66)
    assert (one + two) - two == one
    assert Usage(**two.to_dict()) == two
    assert sum([one, two], Usage()) == one + two
    assert str(Usage(decoded=1234, policy_flops=15_000_000)).startswith("1,234 tokens decoded, 0 prefilled")


def test_fakes_count_as_nothing():
    assert measured(ScriptedPolicy(None), ScriptedScorer(None)) == Usage()
    search = asyncio.run(best_of_n(PROBLEM, ScriptedPolicy(dice("a$")), ScriptedScorer(by_hash), n=2))
    assert independent(2, [solution.tokens for solution in search.solutions], policy=SMALL).decoded == 4
