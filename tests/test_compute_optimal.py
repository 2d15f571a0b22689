"""The compute-optimal strategy on scripted models: it does what its plan says, and pays for its probe."""

import asyncio

import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, dice

from tts.compute_optimal import Plan, compute_optimal, place
from tts.errors import InputError
from tts.policy import Sampling
from tts.strategies import beam_search, best_of_n, majority


def test_places_by_hand():
    edges = (0.8, 0.6, 0.4, 0.2)
    assert [place(ease, edges) for ease in (1.0, 0.7, 0.5, 0.3, 0.1)] == [1, 2, 3, 4, 5]
    assert [place(edge, edges) for edge in edges] == [1, 2, 3, 4], "on an edge the easier one"


def plan(method, *, probe=2):
    return Plan(probe, (0.8, 0.6, 0.4, 0.2), (4, 8), (("majority", method),) * 5)


def run(method, budget):
    policy = ScriptedPolicy(dice("a\n\n", "b\n\n", "c$", "d$"))
    prm = ScriptedScorer(by_hash)
    found = asyncio.run(
        compute_optimal(PROBLEM, policy, prm, plan=plan(method), budget=budget, sampling=Sampling(seed=1))
    )
    return found, policy


def fresh(strategy, *, n, with_prm=True):
    policy, prm = ScriptedPolicy(dice("a\n\n", "b\n\n", "c$", "d$")), ScriptedScorer(by_hash)
    return asyncio.run(strategy(PROBLEM, policy, *[prm] * with_prm, n=n, sampling=Sampling(seed=1)))


def test_independent_samples_include_the_probe():
    found, policy = run("best_of_n_weighted", 8)
    assert found.solutions == fresh(best_of_n, n=8).solutions
    assert found.generated == policy.generated  # the probe's samples were drawn once
    voted, _ = run("dvts", 4)  # the plan has majority at this budget
    assert [s.text for s in voted.solutions] == [s.text for s in fresh(majority, n=4, with_prm=False).solutions]
    assert voted.scored > 0  # the probe was scored, and that is paid


def test_a_search_pays_for_the_probe():
    found, policy = run("beam_search", 8)
    alone, probe = fresh(beam_search, n=6), fresh(best_of_n, n=2)
    assert found.solutions == alone.solutions
    assert found.generated == alone.generated + probe.generated == policy.generated
    assert found.scored == alone.scored + probe.scored


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"budget": 16}, "the plan was fitted for 4, 8"),
        ({"budget": 2}, "above the plan's probe"),
        ({"reduction": "max"}, "reduction is 'max'"),
        ({"beam_width": 0}, "beam_width is 0"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_bad_settings_before_anything_is_drawn(setting, message):
    policy = ScriptedPolicy(dice("c$"))
    settings = {"plan": plan("dvts"), "budget": 8} | setting
    with pytest.raises(InputError, match=message):
        asyncio.run(compute_optimal(PROBLEM, policy, ScriptedScorer(by_hash), **settings))
    assert policy.requests == []
