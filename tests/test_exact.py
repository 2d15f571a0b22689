"""The exact verifier: by hand, on drawn problems, and what it refuses."""

import asyncio
import json
from random import Random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hash, dice

from tts.analysis.cost import Usage, independent, measured, searched, size_of
from tts.analysis.curves import vote_curve
from tts.companion.parameters import load_profile
from tts.companion.setup import set_up
from tts.errors import InputError
from tts.models import exact
from tts.models.flops import NO_MODEL, Size
from tts.models.open import open_policy, open_prm
from tts.problems import Problem, load_problems
from tts.reductions import reduce_scores
from tts.results import collect
from tts.results.store import Store
from tts.strategies import beam_search, best_of_n
from tts.tiny.problems import benchmark, boxed
from tts.tiny.work import Sum
from tts.tree import split_steps

WORK = Sum((1, 2, (3, 4)))  # of PROBLEM: 1 + 2 + 3 * 4, in any order
END = "So $\\boxed{15}$."
MODEL = Size(weights=100, head=10, attention=4)


def score(steps, *, known=(), problem=PROBLEM.text):
    return asyncio.run(open_prm("exact").score(problem, steps, known=known))


@pytest.fixture
def embedded(monkeypatch):
    """PROBLEM as the one embedded problem."""
    instance = SimpleNamespace(text=PROBLEM.text, work=WORK, answers=("15", "15.0"))
    monkeypatch.setattr(exact, "_instances", lambda: {PROBLEM.text: instance})
    monkeypatch.setattr(exact, "_fingerprint", exact._fingerprint.__wrapped__)  # found anew each time
    return instance


@pytest.mark.parametrize(
    ("steps", "scores"),
    [
        (["$1+2=3$", "$3\\cdot4=12$", "$3+12=15$", END], [1, 1, 1, 1]),
        (["Then $3\\cdot4=12$.\n\n", "  Now $2+12=14$\n\n", "$14+1=15$", "\\n $\\boxed{15.0}$"], [1, 1, 1, 1]),
        (["$1+2=3$", "$2+1=3$", END], [1, 0, 0]),  # numbers that are used already
        (["$1+2=4$", "$3\\cdot4=12$", END], [0, 0, 0]),
        (["$1+2=3$", END], [1, 0]),  # steps are left out
        (["$1+2=3$", "$3\\cdot4=12$", "$12+3=15$", "$\\boxed{13}$"], [1, 1, 1, 0]),
        (["$1+2=3$", "$3\\cdot4=12$"], [1, 1]),  # not finished yet: what a search asks
        (["$1+2=3$", "no formula", END], [1, 0, 0]),
        ([], []),
    ],
)
def test_scores_by_hand(embedded, steps, scores):
    assert score(steps) == scores
    assert all(isinstance(one, float) for one in score(steps))


def test_every_reduction(embedded):
    right, wrong = (score(["$3\\cdot4=12$", step, "$3+12=15$", END]) for step in ("$1+2=3$", "$1+2=4$"))
    for how, value in {"last": 0, "min": 0, "prod": 0, "mean": 1 / 4}.items():
        assert reduce_scores(right, how) == 1
        assert reduce_scores(wrong, how) == pytest.approx(value)


def test_known_scores_and_blank_steps(embedded):
    """As every scorer: known scores come back as given, white space alone has the score of the step before it."""
    steps = ["$1+2=3$\n\n", "\n\n", "$3\\cdot4=12$\n\n", " ", "$3+12=15$\n\n", END, "\n"]
    assert score(steps) == [1] * 7
    assert score(steps, known=[0.25, 0.25]) == [0.25, 0.25, 1, 1, 1, 1, 1]
    assert score(steps, known=[1, 1, 0.25]) == [1, 1, 0.25, 0.25, 1, 1, 1]
    assert score(steps[:1], known=[0.5]) == [0.5]
    with pytest.raises(InputError, match=r"known has 2 scores for 1 steps"):
        score(steps[:1], known=[1, 1])
    with pytest.raises(InputError, match=r"steps\[0\] is white space alone"):
        score([" \n", END])


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_frozen_problems(split):
    """Each one's own solution is right; a wrong formula spoils what follows, not what stands before."""
    problems = load_problems(f"tiny/{split}")
    assert [one.text for one, _ in benchmark(split)] == [problem.text for problem in problems]
    scorer = open_prm("exact", problems=problems)

    async def scores(change):
        changed = [change(split_steps(problem.solution)) for problem in problems[:40]]
        return [await scorer.score(problem.text, one) for problem, one in zip(problems, changed, strict=False)]

    assert all(set(one) == {1.0} for one in asyncio.run(scores(lambda steps: steps)))
    for one in asyncio.run(scores(lambda steps: [*steps[:-2], "$0=1$", steps[-1]])):
        assert one == [1.0] * (len(one) - 2) + [0.0] * 2


def test_other_orders_of_a_drawn_sum():
    instance = next(one for one, _ in benchmark("dev") if one.subject == "Geometry")
    solutions = {tuple(instance.solution(Random(seed))[:-1]) for seed in range(20)}
    assert len(solutions) > 5
    for solution in solutions:
        for answer in instance.answers:
            steps = [*solution, boxed(answer)]
            assert score(steps, problem=instance.text) == [1.0] * len(steps)


def test_step_labels(embedded):
    assert exact.step_labels(PROBLEM.text, ["$1+2=3$", "$1=1$", END]) == [True, False, False]
    assert exact.step_labels("another", ["$1+2=3$"]) is None


def test_the_key_changes_with_checker_and_problems(embedded, monkeypatch):
    def key():
        return open_prm("exact").fingerprint

    first = key()
    assert first == key()
    keys = [first]
    for name, value in (("work", Sum((2, 1, (3, 4)))), ("answers", ("15",))):
        with monkeypatch.context() as patch:
            patch.setattr(embedded, name, value)
            keys.append(key())
    monkeypatch.setattr(exact, "VERSION", exact.VERSION + 1)
    keys.append(key())
    assert len(set(keys)) == 4


def test_stored_scores_are_those_of_this_version(embedded, monkeypatch, tmp_path):
    steps = "$1+2=3$\n\n$3\\cdot4=12$\n\n$3+12=15$\n\n" + END
    samples = pd.DataFrame([(PROBLEM.id, 0, steps)], columns=["problem", "index", "text"])

    def stored():
        rated = asyncio.run(collect.score([PROBLEM], samples, open_prm("exact"), Store(tmp_path)))
        assert rated.scores.tolist() == [[1.0, 1.0, 1.0, 1.0]]
        return {file.parent.name: file.read_text() for file in tmp_path.glob("scores/*/records.jsonl")}

    first = stored()
    assert stored() == first
    record = json.loads(next(iter(first.values())))
    assert record["made_by"] == {"engine": "checker"}
    monkeypatch.setattr(exact, "VERSION", exact.VERSION + 1)
    assert len(stored()) == 2


# --- What it costs --------------------------------------------------------------------------------


def test_it_costs_nothing(embedded):
    scorer = open_prm("exact")
    assert size_of(scorer) == NO_MODEL
    score(["$1+2=3$"])
    assert measured(prm=scorer) == Usage()
    alone = independent(5, [2, 3], policy=MODEL, prm=size_of(scorer))
    assert alone == independent(5, [2, 3], policy=MODEL)
    policy = ScriptedPolicy(dice("ab\n\n", "c\n\n", "d$"))
    search = asyncio.run(beam_search(PROBLEM, policy, ScriptedScorer(by_hash), n=8))
    spent = searched(10, search, policy=MODEL, prm=size_of(scorer))
    assert (spent.scored, spent.prm_flops, spent.decoded) == (0, 0, search.generated)


# --- Ties -----------------------------------------------------------------------------------------


def test_where_every_solution_scores_0_the_first_answer_wins():
    """Of two different answers each is first in half of the orders; a solution without an answer is never chosen."""
    codes, gold = np.array([[0, 1], [-1, 0], [-1, -1]]), np.array([0, 0, -2])
    for rule in ("weighted", "vanilla"):
        right = vote_curve(codes, gold, [2], rule=rule, scores=np.zeros(codes.shape), draws=400)[:, 0]
        assert right[0] == pytest.approx(0.5, abs=0.1)
        assert right[1:].tolist() == [1, 0]


@pytest.mark.engine
def test_a_search_with_it():
    """It keeps what is right: only where no child is right does a wrong one go on."""
    problems, policy = load_problems("tiny/dev", n=6), open_policy("policy-xs", engine="transformers")

    async def run():
        prm = open_prm("exact", problems=problems)
        found = [await beam_search(problem, policy, prm, n=8) for problem in problems]
        found += [await best_of_n(problem, policy, prm, n=4) for problem in problems]
        await policy.close()
        await prm.close()
        return found

    for search in asyncio.run(run()):
        assert all(set(solution.scores) <= {0.0, 1.0} for solution in search.solutions)
        levels = {}
        for node in search.nodes:
            levels.setdefault(len(node.path), []).append(node)
        for nodes in levels.values():
            kept = [node.score for node in nodes if node.fate == "kept"]
            passed_over = [node.score for node in nodes if node.fate == "dropped" and node.score is not None]
            assert not kept or min(kept) >= max(passed_over, default=0)


# --- What it refuses ------------------------------------------------------------------------------


def refused(call, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LINE = "exact can only score the embedded problems (tiny/test, tiny/dev): name another verifier"


def test_other_problems():
    assert refused(open_prm, "exact", parameter="other_prms", problems=[PROBLEM]) == f"other_prms: {LINE}"
    assert refused(score, ["1"]) == f"prm_model: {LINE}"
    problem = load_problems("tiny/dev", n=1)[0]
    edited = Problem(problem.id, problem.text + " Really?", problem.answer)
    assert refused(open_prm, "exact", problems=[problem, edited]) == f"prm_model: {LINE}"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"prm_model": "exact", "other_prms": ""}, "prm_model"),
        ({"prm_model": "prm", "other_prms": "exact"}, "other_prms"),
    ],
)
def test_a_notebook_says_so_before_a_model_is_loaded(tmp_path, parameters, named):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"problem": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(12)))
    given = load_profile("default") | {"problems": str(file), "n_problems": 12} | parameters
    assert refused(set_up, given) == f"{named}: {LINE}"


def test_embedded_problems_in_a_file_of_ones_own_are_fine(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [{"problem": problem.text, "answer": problem.answer} for problem in load_problems("tiny/dev", n=12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = load_profile("default") | {"problems": str(file), "n_problems": 12}
    setup = set_up(given | {"prm_model": "exact", "other_prms": "prm, exact"})
    assert (setup.prm.name, [prm.name for prm in setup.other_prms]) == ("exact", ["prm"])


def test_settings_of_models_are_checked_all_the_same():
    assert "dtype='float8' is unknown" in refused(open_prm, "exact", dtype="float8")
    assert open_prm("exact", name="mine", engine="vllm").name == "mine"
    assert "policy_model='exact' is unknown" in refused(open_policy, "exact")
