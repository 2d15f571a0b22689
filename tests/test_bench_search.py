"""The searches' bench: its baselines return what ours do where the algorithm is the same, and it prints its tables."""

import asyncio
import inspect

import pytest
from fakes import ScriptedPolicy, ScriptedScorer, by_hash, dice, with_sampling

from bench import _baselines, search
from bench._baselines import lock_step, published
from tts.errors import InputError
from tts.policy import Sampling
from tts.problems import Problem
from tts.strategies import beam_search, dvts

PROBLEMS = [Problem(id=f"p{i}", text=f"Q{i}", answer="1") for i in range(7)]
MIXED = ("a\n\n", "b\n\n", "cc\n\n", "\n\n", "d$", "ee$", "$")  # steps, blank ones, ends, an end after a blank line


def until(length):
    """A script whose solutions all end at the same step, so that no child finishes before the others."""

    def script(written, seed):
        step = dice("a", "b", "cc")(written, seed)
        return step + ("$" if written.count("\n\n") == length - 1 else "\n\n")

    return script


def ours(strategy, script, *, context=10_000, **settings):
    """Searches of all problems at once, and the fakes; for the settings see with_sampling."""

    async def main():
        return await asyncio.gather(*(strategy(p, policy, prm, **with_sampling(**settings)) for p in PROBLEMS))

    policy, prm = ScriptedPolicy(script, context=context), ScriptedScorer(by_hash)
    return asyncio.run(main()), policy, prm


def baseline(schedule, strategy, script, *, context=10_000, **settings):
    policy, prm = ScriptedPolicy(script, context=context), ScriptedScorer(by_hash)
    made = schedule(PROBLEMS, strategy.__name__, policy, prm, **with_sampling(**settings))
    return asyncio.run(made), policy, prm


def trees(searches):
    """All that a search decided and drew, but for what the baselines leave out."""
    return [(s.problem, s.solutions, s.nodes, s.generated) for s in searches]


@pytest.mark.parametrize("strategy", [beam_search, dvts])
@pytest.mark.parametrize(
    "limits", [{}, {"max_tokens": 9}, {"context": 12}, {"depth": 3}, {"beam_width": 1}, {"beam_width": 3}]
)
@pytest.mark.parametrize("n", [1, 4, 11])
def test_lock_step_grows_the_same_trees(strategy, limits, n):
    for seed in range(2):
        same = {"n": n, "seed": seed, **limits}
        searches, policy, prm = ours(strategy, dice(*MIXED), **same)
        others, other_policy, other_prm = baseline(lock_step, strategy, dice(*MIXED), **same)
        assert trees(others) == trees(searches)
        assert [s.scored for s in others] == [s.scored for s in searches]
        assert sorted(map(repr, other_policy.requests)) == sorted(map(repr, policy.requests))
        assert sorted(other_prm.scored) == sorted(prm.scored)


@pytest.mark.parametrize(
    "limits", [{}, {"max_tokens": 9}, {"context": 12}, {"depth": 3}, {"beam_width": 1}, {"beam_width": 3}]
)
@pytest.mark.parametrize("n", [1, 4, 11])
def test_the_published_dvts_returns_the_same_solutions(limits, n):
    for seed in range(2):
        same = {"n": n, "seed": seed, **limits}
        searches, policy, _ = ours(dvts, dice(*MIXED), **same)
        others, other_policy, _ = baseline(published, dvts, dice(*MIXED), **same)
        assert trees(others) == trees(searches)
        assert sorted(map(repr, other_policy.requests)) == sorted(map(repr, policy.requests))


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize(("n", "width"), [(1, 4), (4, 4), (7, 2), (16, 4)])
def test_the_published_beam_search_returns_the_same_where_all_finish_at_once(n, width, length):
    for seed in range(2):
        same = {"n": n, "beam_width": width, "seed": seed}
        searches, *_ = ours(beam_search, until(length), **same)
        others, _, prm = baseline(published, beam_search, until(length), **same)
        assert all(len(search.solutions) == n for search in searches)
        assert trees(others) == trees(searches)
        # It scores each child's whole prefix, copies too: 1 + 2 + ... steps for each of N.
        assert len(prm.scored) == len(PROBLEMS) * n * length * (length + 1) // 2


def test_the_published_beam_search_goes_on_with_n_and_returns_the_first_to_finish():
    """Where some finish early it expands N again and again; ours draws what is missing and no more."""
    script = dice("a\n\n", "b\n\n", "c$")
    _, policy, _ = ours(beam_search, script, n=4, depth=12)
    others, other_policy, _ = baseline(published, beam_search, script, n=4, depth=12)
    assert other_policy.generated > 1.5 * policy.generated
    for other in others:
        finished = sorted((len(node.path), node.path) for node in other.nodes if node.finish == "end")
        assert sorted(len(s.path) for s in other.solutions) == [length for length, _ in finished[:4]]
        assert len(other.solutions) == 4 < len(finished)


def test_both_strategies_have_the_defaults_of_the_baselines():
    for strategy in (beam_search, dvts):
        defaults = {name: setting.default for name, setting in inspect.signature(strategy).parameters.items()}
        assert {name: defaults[name] for name in _baselines.DEFAULTS} == _baselines.DEFAULTS


def waits(schedule, strategy):
    """For each problem, how many other problems had a request under way at the same time."""
    going, beside = set(), {problem.text: set() for problem in PROBLEMS}

    async def gate(problem, _):
        going.add(problem)
        for other in going:
            beside[other].add(problem)
            beside[problem].add(other)
        for _ in range(5):
            await asyncio.sleep(0)
        going.discard(problem)

    policy, prm = ScriptedPolicy(until(3), gate=gate), ScriptedScorer(by_hash)
    asyncio.run(schedule(PROBLEMS, strategy.__name__, policy, prm, n=4))
    return {len(others) for others in beside.values()}


def test_the_schedules_are_what_they_say(monkeypatch):
    monkeypatch.setitem(_baselines.BATCH, "dvts", 3)
    assert waits(published, beam_search) == {1}
    assert waits(published, dvts) == {1, 3}  # 7 problems, 3 at a time
    assert waits(lock_step, beam_search) == waits(lock_step, dvts) == {7}


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_in_lock_step_nobody_draws_while_anybody_is_scored(strategy):
    drawing = scoring = 0

    async def draw(*_):
        nonlocal drawing
        drawing += 1
        for _ in range(3):
            assert not scoring
            await asyncio.sleep(0)
        drawing -= 1

    async def score(*_):
        nonlocal scoring
        scoring += 1
        for _ in range(3):
            assert not drawing
            await asyncio.sleep(0)
        scoring -= 1

    policy, prm = ScriptedPolicy(dice(*MIXED), gate=draw), ScriptedScorer(by_hash, gate=score)
    asyncio.run(lock_step(PROBLEMS, strategy.__name__, policy, prm, n=4))


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_of_many_problems_at_once_nothing_is_drawn_or_scored_twice(strategy):
    for seed in range(3):
        searches, policy, prm = ours(strategy, dice(*MIXED), n=16, seed=seed)
        assert len(set(policy.requests)) == len(policy.requests)
        assert (
            policy.generated == sum(s.generated for s in searches) == sum(n.tokens for s in searches for n in s.nodes)
        )
        assert len(set(prm.scored)) == len(prm.scored)
        scored = {(s.problem, n.path) for s in searches for n in s.nodes if n.score is not None}
        assert scored, "there is something to score"


# --- The measurement itself, with the embedded models ---------------------------------------------


@pytest.mark.engine
def test_it_prints_its_tables(monkeypatch, capsys):
    for name, value in {"PROBLEMS": "3", "N": "4", "ENGINE": "transformers", "PUBLISHED": "transformers"}.items():
        monkeypatch.setenv(f"TTS_BENCH_{name}", value)
    monkeypatch.setattr(search, "GROWTH_N", (4, 8))
    monkeypatch.setattr(search, "GROWTH_DEPTHS", (2, 4))
    monkeypatch.setattr(search, "USUAL_DEPTH", 2)
    search.main()
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    tokens = [row for row in rows if row[:2] in (["beam_search", "4"], ["dvts", "4"])][2:]
    for row in tokens:
        assert 0.5 < float(row[2]) <= 1, "what siblings begin with in common is scored once"
        assert 0.5 < float(row[4]) <= 1
        assert float(row[3]) > 1, "(a) scores prefixes again"
        assert row[5] == "1.00", "every token is decoded once"
    grown = [row for row in rows if row[:1] in (["N"], ["depth"])]
    assert [(row[0], int(row[1])) for row in grown[2:]] == [("N", 4), ("N", 8), ("depth", 2), ("depth", 4)]
    assert len([row for row in rows if row[:1] == ["exponent"]]) == 2


@pytest.mark.parametrize(("name", "value"), [("N", "4,x"), ("N", "0"), ("PROBLEMS", "-3")])
def test_a_wrong_number_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"TTS_BENCH_{name}", value)
    with pytest.raises(InputError, match=f"TTS_BENCH_{name} has .*: give whole numbers"):
        search.main()


def test_forced_steps_have_their_length_whatever_the_policy_does():
    """The policy under it ends its turn every few tokens; each step still has all of its tokens, and D of them."""

    class Checkpoint:
        decode = staticmethod(lambda ids: "".join(map(chr, ids)))

    policy = ScriptedPolicy(dice("a", "b", "c$"))
    policy.checkpoint = Checkpoint()
    made = search.Forced(policy, PROBLEMS[0], 3)
    found = asyncio.run(beam_search(PROBLEMS[0], made, ScriptedScorer(by_hash), n=4))
    assert len(found.nodes) == 3 * 4
    assert [len(s.steps) for s in found.solutions] == [3] * 4
    assert {node.tokens for node in found.nodes if node.finish == "stop"} == {search.STEP_TOKENS}
    assert found.generated == 4 * (3 * search.STEP_TOKENS + 1)  # and the end of the turn


@pytest.mark.parametrize(("where", "rest"), [({"device": "cpu"}, 1 + 31 + 32 + 1), ({}, 1 + 31 + 32 + 33)])
def test_the_rest_is_what_no_whole_block_holds(where, rest):
    """Prefixes of 1, 31, 32 and 33 tokens: at least one token is always read; without a block cache all are."""
    policy = ScriptedPolicy(dice("a$"))
    policy.counts, policy.provenance = {}, where
    noted = search.NotedPolicy(policy)
    for size in (1, 31, 32, 33):
        prefix = tuple(map(ord, "|" + "a" * (size - 1)))
        asyncio.run(noted.sample(prefix, Sampling(temperature=1.0, max_tokens=5)))
    assert noted.rest() == rest
