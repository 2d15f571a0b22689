"""One call from a problem to an answer: the vote by hand, a running event loop, an interrupt, and real models."""

import asyncio
import os
import signal
from dataclasses import FrozenInstanceError

import pytest
from fakes import ScriptedPolicy, ScriptedScorer, table
from processes import started
from toys import ROOT

import tts
from tts.errors import EngineError, InputError

# Four samples, each of two steps; 2 and 4/2 are one answer.
DRAWS = {
    "": ["a\n\n", "b\n\n", "c\n\n", "d\n\n"],
    "a\n\n": [r"\boxed{3}$"],
    "b\n\n": [r"\boxed{2}$"],
    "c\n\n": [r"\boxed{4/2}$"],
    "d\n\n": ["none$"],
}
SCORES = {"a": 0.5, "b": 0.1, "c": 0.2, "d": 0.9, r"\boxed{3}": 0.5, r"\boxed{2}": 0.2, r"\boxed{4/2}": 0.4, "none": 1}


class Closes(ScriptedPolicy):
    closed = 0

    async def close(self):
        self.closed += 1


def whole(draws):
    """The script of whole solutions, drawn in turn."""
    texts = [first + rest for first in draws[""] for rest in draws[first]]
    return table({"": texts})


def solve(strategy="best_of_n", **settings):
    policy, scorer = Closes(whole(DRAWS)), ScriptedScorer(lambda steps: SCORES[steps[-1].strip()])
    return tts.solve("Q", **{"policy": policy, "prm": scorer, "n": 4, "strategy": strategy} | settings)


def test_a_weighted_vote_by_hand():
    """0.2 + 0.4 for 2 beats 0.5 for 3; the best solution for 2 writes it 4/2. No answer has no vote."""
    found = solve()
    assert found.answer == "4/2"
    assert found.votes == {"2": pytest.approx(0.6), "3": 0.5}
    assert list(found.votes) == ["2", "3"]
    assert (found.steps, found.scores) == (["c\n\n", r"\boxed{4/2}"], [0.2, 0.4])
    assert found.generated == found.search.generated == sum(one.tokens for one in found.search.solutions)
    assert found.scored == found.search.scored
    with pytest.raises(FrozenInstanceError):
        found.answer = "5"


@pytest.mark.parametrize(("reduction", "answer"), [("min", "3"), ("prod", "3"), ("mean", "3"), ("last", "4/2")])
def test_the_reduction_decides(reduction, answer):
    """min: 0.5 against 0.1 + 0.2; prod: 0.25 against 0.02 + 0.08; mean: 0.5 against 0.15 + 0.3."""
    assert solve(reduction=reduction).answer == answer


def test_one_vote_each_needs_no_scorer():
    found = solve("majority", prm=None)
    assert (found.answer, found.votes, found.scores, found.scored) == ("2", {"2": 2, "3": 1}, [], 0)
    assert list(solve("majority").votes) == ["2", "3"], "and asks none"


def test_no_answer_at_all():
    found = tts.solve("Q", policy=Closes(lambda written, seed: "none$"), n=2, strategy="majority")
    assert (found.answer, found.votes, found.steps) == (None, {}, [])
    assert str(found).startswith("answer: None\nvotes: none\n")


def test_it_prints_its_reasons():
    assert str(solve()).splitlines() == [
        "answer: 4/2",
        "votes: 2: 0.6, 3: 0.5",
        "  0.20  c",
        r"  0.40  \boxed{4/2}",
        f"tokens: {solve().generated} generated, {solve().scored} scored",
    ]


@pytest.mark.parametrize("strategy", ["beam_search", "dvts"])
def test_the_searches(strategy):
    policy = Closes(lambda written, seed: r"\boxed{7}$" if written else "a\n\n")
    found = tts.solve("Q", policy=policy, prm=ScriptedScorer(lambda steps: 0.5), n=4, strategy=strategy)
    assert (found.answer, found.search.strategy, found.scores) == ("7", strategy, [0.5, 0.5])


def test_a_policy_of_the_caller_stays_open_and_serves_again():
    policy = Closes(lambda written, seed: r"\boxed{7}$")
    for _ in range(2):
        assert tts.solve("Q", policy=policy, n=2, strategy="majority").answer == "7"
    assert policy.closed == 0


def test_inside_a_running_loop():
    """As in a notebook's cell: its loop is running, and the call has to return the value."""

    async def cell():
        return solve()

    assert asyncio.run(cell()).answer == "4/2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "beam"}, "strategy is 'beam': choose one of beam_search, dvts, best_of_n, majority"),
        ({"prm": None}, "prm is missing: best_of_n needs one; name it, or take strategy='majority'"),
        ({"reduction": "max"}, "reduction is 'max': choose one of last, min, prod, mean"),
        ({"n": 0}, "n is 0: it must be a whole number, 1 or more"),
        ({"policy": "policy-xxs"}, "policy='policy-xxs'"),
        ({"policy": "policy-xs", "prm": "prm-xxs"}, "prm='prm-xxs'"),
    ],
)
def test_what_is_wrong_is_one_line(change, message):
    with pytest.raises(InputError) as error:
        solve(**change)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_blank_problem_is_refused():
    with pytest.raises(InputError, match="problem is empty"):
        tts.solve("  \n", policy=Closes(whole(DRAWS)), strategy="majority")


def test_an_engine_that_fails_is_raised_as_it_is():
    async def fails(*_):
        raise EngineError("the engine died")

    with pytest.raises(EngineError, match="the engine died"):
        solve(policy=Closes(whole(DRAWS), gate=fails))


HANGS = """
import asyncio, sys
sys.path.insert(0, "tests")
import tts
from fakes import ScriptedPolicy

async def forever(*_):
    print("waiting", flush=True)
    try:
        await asyncio.sleep(600)
    finally:
        print("cancelled", flush=True)

async def cell():
    try:
        tts.solve("Q", policy=ScriptedPolicy(None, gate=forever), n=1, strategy="majority")
    except KeyboardInterrupt:
        print("interrupted", flush=True)

loop = asyncio.new_event_loop()  # like that of a kernel, which leaves interrupts to Python
loop.run_until_complete(cell())
"""


def test_an_interrupt_ends_it():
    with started("-c", HANGS, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert out == "cancelled\ninterrupted\n"
    assert process.returncode == 0


@pytest.mark.engine
def test_the_embedded_models_solve_a_problem():
    """The call of the README, and again in a running loop: the same answer."""
    problem = tts.load_problems("tiny/test", n=3)[2]
    settings = {"policy": "policy-xs", "prm": "prm", "n": 8, "sampling": tts.Sampling(max_tokens=256)}
    found = tts.solve(problem.text, **settings)
    assert found.answer is not None
    assert len(found.steps) == len(found.scores) >= 2
    assert 0 < max(found.votes.values()) <= sum(found.votes.values()) <= 8

    async def cell():
        return tts.solve(problem.text, **settings)

    again = asyncio.run(cell())
    assert (again.answer, again.steps, again.generated) == (found.answer, found.steps, found.generated)


@pytest.mark.engine
def test_an_open_policy_serves_several_calls():
    policy = tts.open_policy("policy-xs", engine="transformers")
    problem = tts.load_problems("tiny/test", n=1)[0]
    first, second = (tts.solve(problem, policy=policy, n=4, strategy="majority") for _ in range(2))
    assert first.votes == second.votes
    asyncio.run(policy.close())
