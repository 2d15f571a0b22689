"""The four strategies on scripted models: by hand, against a naive second implementation, in degenerate cases."""

import asyncio
import json
import random
from collections import Counter

import numpy as np
import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_hand, by_hash, by_last, dice, table, with_sampling
from hypothesis import given, settings
from hypothesis import strategies as st

import tts.tree
from tts.errors import ContextExceeded, EngineError, InputError
from tts.policy import Sampling
from tts.problems import Problem
from tts.seeds import node_seed, sample_seed
from tts.strategies import beam_search, best_of_n, dvts, majority
from tts.tree import Node, Search, Solution, divide, split_steps

MIXED = ("a\n\n", "b\n\n", "cc\n\n", "\n\n", "d$", "ee$", "$")  # steps, blank ones, ends, an end after a blank line


def run(strategy, script, rule=None, *, problem=PROBLEM, context=10_000, **settings):
    """Search, policy and scorer after one strategy ran on one problem; for the settings see with_sampling."""
    policy, prm = ScriptedPolicy(script, context=context), ScriptedScorer(rule)
    scorers = () if strategy is majority else (prm,)
    return asyncio.run(strategy(problem, policy, *scorers, **with_sampling(**settings))), policy, prm


def texts(search):
    return [solution.text for solution in search.solutions]


def fates(search):
    return {node.path[1:]: node.fate for node in search.nodes}


# --- Beam search by hand --------------------------------------------------------------------------


def test_beam_search_by_hand():
    """N = 4, M = 2: of the first steps b and d are kept; be finishes; then 3 children of the better of bf and dg."""
    search, policy, prm = run(beam_search, *by_hand(), n=4, beam_width=2)
    assert texts(search) == ["b\n\ne", "d\n\ng\n\ni", "d\n\ng\n\nj", "d\n\ng\n\nk\n\nl"]
    assert search.ended == ["finished"]
    assert [solution.scores for solution in search.solutions] == [
        [0.9, 0.3],
        [0.8, 0.7, 0.5],
        [0.8, 0.7, 0.6],
        [0.8, 0.7, 0.2, 0.9],
    ]
    assert [solution.steps for solution in search.solutions][1] == ["d\n\n", "g\n\n", "i"]
    assert [solution.path for solution in search.solutions] == [(0, 1, 0), (0, 3, 0, 0), (0, 3, 0, 1), (0, 3, 0, 2, 0)]
    assert {solution.finish for solution in search.solutions} == {"end"}
    assert fates(search) == {
        (0,): "dropped",
        (1,): "kept",
        (1, 0): "solution",
        (1, 1): "dropped",
        (2,): "dropped",
        (3,): "kept",
        (3, 0): "kept",
        (3, 0, 0): "solution",
        (3, 0, 1): "solution",
        (3, 0, 2): "kept",
        (3, 0, 2, 0): "solution",
        (3, 1): "dropped",
    }
    assert [node.path for node in search.nodes] == sorted(node.path for node in search.nodes)
    # tokens: four first steps of 3; e and the end-of-turn token 2, f, g, h 3 each; i, j 2 each, k 3; l 2
    assert search.generated == search.scored == 12 + 2 + 9 + 2 + 2 + 3 + 2 == policy.generated
    assert [solution.tokens for solution in search.solutions] == [5, 8, 8, 11]
    assert [solution.logprob for solution in search.solutions] == [-4.0, -7.0, -7.0, -10.0]
    assert len(prm.scored) == len(search.nodes) == 12


def test_finished_ones_do_not_compete_for_places():
    """A finished child with the best score must not take the place of an unfinished one."""
    script = table({"": ["a$", "b\n\n", "c\n\n", "d$"], "b\n\n": ["e$", "f$"]})
    search, *_ = run(beam_search, script, by_last(a=1, b=0.2, c=0.1, d=0.9, e=0, f=0), n=4, beam_width=2)
    assert texts(search) == ["a", "d", "b\n\ne", "b\n\nf"]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 8, 11, 16])
@pytest.mark.parametrize("width", [1, 2, 4, 32])
def test_never_more_children_than_are_missing(n, width):
    """The reference goes on with N after N have finished and returns the first N, which favours short solutions."""
    for seed in range(5):
        search, *_ = run(beam_search, dice("a\n\n", "b\n\n", "c$"), by_hash, n=n, beam_width=width, seed=seed)
        assert search.ended == ["finished"]
        assert len(search.solutions) == n
        rounds = Counter(len(node.path) - 1 for node in search.nodes)
        finished = Counter(len(node.path) - 1 for node in search.nodes if node.finish == "end")
        missing = n
        for depth in range(1, max(rounds) + 1):
            assert rounds[depth] == missing, "N - f children in all"
            kept = sum(node.fate == "kept" for node in search.nodes if len(node.path) - 1 == depth)
            unfinished = rounds[depth] - finished[depth]
            missing -= finished[depth]
            assert kept == (min(unfinished, max(1, missing // width)) if missing else 0), "floor((N - f) / M) are kept"
        assert missing == 0


def test_long_solutions_keep_their_place():
    """Three first steps finish; the fourth branch, three steps long, still comes back, and nothing beyond it."""
    script = table(
        {"": ["a$", "b$", "c$", "d\n\n"], "d\n\n": ["e\n\n"], "d\n\ne\n\n": ["f$"]},
    )
    search, policy, _ = run(beam_search, script, lambda steps: 0.5, n=4, beam_width=2)
    assert texts(search) == ["a", "b", "c", "d\n\ne\n\nf"]
    assert len(policy.requests) == 6


def test_children_of_n_that_m_does_not_divide():
    """N = 7, M = 2: 3 parents, the best ones get one child more: 3, 2, 2."""
    script = dice("a\n\n", "b\n\n", "c\n\n", "d\n\n", "e\n\n")
    search, *_ = run(beam_search, script, by_hash, n=7, beam_width=2, depth=2)
    first = [node for node in search.nodes if len(node.path) == 2]
    best = sorted(first, key=lambda node: (-node.score, node.path))[:3]
    children = Counter(node.path[:-1] for node in search.nodes if len(node.path) == 3)
    assert [children.pop(node.path) for node in best] == [3, 2, 2]
    assert not children
    assert divide(7, 3) == [3, 2, 2]
    assert divide(4, 4) == [1, 1, 1, 1]


def test_fewer_than_m_is_one_parent():
    script = table({"": ["a\n\n", "b\n\n"], "b\n\n": ["c$", "d$"]})
    search, *_ = run(beam_search, script, by_last(a=0.1, b=0.9, c=0, d=0), n=2, beam_width=4)
    assert texts(search) == ["b\n\nc", "b\n\nd"]


def test_ties_go_to_the_first_in_the_order_of_the_draw():
    """All scores equal: of the first steps the first two are kept, and their children stand in the same order."""
    script = table(
        {
            "": ["a\n\n", "b\n\n", "c\n\n", "d\n\n"],
            "a\n\n": ["e\n\n", "f\n\n"],
            "b\n\n": ["g\n\n", "h\n\n"],
            "a\n\ne\n\n": ["i$", "j$"],
            "a\n\nf\n\n": ["k$", "l$"],
        }
    )
    search, *_ = run(beam_search, script, lambda steps: 0.5, n=4, beam_width=2)
    assert texts(search) == ["a\n\ne\n\ni", "a\n\ne\n\nj", "a\n\nf\n\nk", "a\n\nf\n\nl"]


def test_ties_after_a_better_parent():
    """The better parent's children are drawn first, whatever its own place, so they win ties."""
    script = table(
        {
            "": ["a\n\n", "b\n\n"],
            "a\n\n": ["c\n\n"],
            "b\n\n": ["d\n\n"],
            "b\n\nd\n\n": ["e$"],
            "a\n\nc\n\n": ["f$"],
        }
    )
    search, *_ = run(beam_search, script, by_last(a=0.1, b=0.9, c=0.5, d=0.5, e=0, f=0), n=2, beam_width=1)
    assert texts(search) == ["b\n\nd\n\ne", "a\n\nc\n\nf"]


# --- What ends a search ---------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_none_finished_at_the_depth(strategy):
    search, *_ = run(strategy, dice("a\n\n", "b\n\n"), by_hash, n=8, beam_width=4, depth=3)
    assert search.solutions == []
    assert set(search.ended) == {"depth"}
    assert max(len(node.path) - 1 for node in search.nodes) == 3


def test_beam_search_returns_what_finished_before_the_depth():
    script = table({"": ["a$", "b\n\n", "c\n\n", "d\n\n"], "c\n\n": ["e\n\n", "f\n\n", "g\n\n"]})
    scores = by_last(a=0.1, b=0.2, c=0.3, d=0.2, e=0, f=0.5, g=0)
    search, *_ = run(beam_search, script, scores, n=4, depth=2)
    assert texts(search) == ["a"]
    assert search.ended == ["depth"]
    assert fates(search)[2, 1] == "kept", "the depth ended it, not its score"


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_all_finished_early(strategy):
    search, *_ = run(strategy, table({"": ["a$", "b$", "c$", "d$"]}), by_last(a=0, b=1, c=0, d=0), n=4)
    assert texts(search) == ["a", "b", "c", "d"]
    assert search.ended == ["finished"]


@pytest.mark.parametrize(("limits", "reason"), [({"max_tokens": 7}, "tokens"), ({"context": 2 + 7}, "context")])
@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_out_of_tokens_or_context_is_not_finished(strategy, limits, reason):
    """Budget 7, over all steps: after two steps of 3 one token is left, enough for an end of turn alone."""
    script = table({"": ["a\n\n", "a\n\n"], "a\n\n": ["b\n\n", "b\n\n"], "a\n\nb\n\n": ["$", "c$"]})
    search, _, prm = run(strategy, script, lambda steps: 0.5, n=2, **limits)
    assert texts(search) == ["a\n\nb\n\n"]
    assert [solution.tokens for solution in search.solutions] == [7]
    assert fates(search)[0, 0, 1] == reason
    cut = next(node for node in search.nodes if node.fate == reason)
    assert (cut.text, cut.tokens, cut.finish, cut.score) == ("c", 1, "length", None)
    assert not any("c" in steps[-1] for _, steps in prm.scored), "what was cut is not scored"
    assert search.ended == (["finished"] if strategy is dvts else [reason])


@pytest.mark.parametrize(("limits", "reason"), [({"max_tokens": 6}, "tokens"), ({"context": 2 + 6}, "context")])
@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_a_step_that_fills_the_budget_cannot_go_on(strategy, limits, reason):
    search, policy, _ = run(strategy, dice("a\n\n"), lambda steps: 0.5, n=4, **limits)
    assert search.solutions == []
    assert search.ended == [reason]
    assert len(policy.requests) == 8, "nothing is asked of the policy where no token has room"


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_a_prompt_that_fills_the_context(strategy):
    search, policy, _ = run(strategy, dice("a$"), by_hash, n=4, context=2)
    assert search.solutions == []
    assert search.ended == ["context"]
    assert policy.requests == []


def test_cut_branches_leave_their_places_to_others():
    """Two of four branches are cut in a step that is too long: the others get N - f children."""
    script = table({"": ["a\n\n", "long step", "b\n\n", "long step"], "b\n\n": ["c$", "d$", "e$", "f$"]})
    search, *_ = run(beam_search, script, by_last(a=0.1, b=0.2, c=0, d=0, e=0, f=0), n=4, max_tokens=5)
    assert texts(search) == ["b\n\nc", "b\n\nd", "b\n\ne", "b\n\nf"]
    assert Counter(fates(search).values())["tokens"] == 2


# --- DVTS by hand ---------------------------------------------------------------------------------


def test_dvts_by_hand():
    """N = 4, M = 2. Tree 0: b, then bc, which finishes beside bd. Tree 1: h finishes early but is not the best."""
    draws = {
        (0, 0): "a\n\n",
        (0, 1): "b\n\n",
        (0, 1, 0): "c$",
        (0, 1, 1): "d$",
        (1, 0): "g\n\n",
        (1, 1): "h$",
        (1, 0, 0): "i\n\n",
        (1, 0, 1): "j$",
    }
    by_seed = {node_seed(0, "p1", "dvts", 4, path): step for path, step in draws.items()}
    scores = by_last(a=0.1, b=0.2, c=0.9, d=0.1, g=0.8, h=0.7, i=0.3, j=0.4)
    search, *_ = run(dvts, lambda written, seed: by_seed[seed], scores, n=4, beam_width=2)
    assert texts(search) == ["b\n\nc", "b\n\nd", "g\n\nj"], "unfinished siblings never, h forgotten"
    assert search.ended == ["finished", "finished"]
    assert {node.path: node.fate for node in search.nodes} == {
        (0, 0): "dropped",
        (0, 1): "kept",
        (0, 1, 0): "solution",
        (0, 1, 1): "solution",
        (1, 0): "kept",
        (1, 0, 0): "dropped",
        (1, 0, 1): "solution",
        (1, 1): "dropped",
    }
    best_only, *_ = run(dvts, lambda written, seed: by_seed[seed], scores, n=4, beam_width=2, siblings=False)
    assert texts(best_only) == ["b\n\nc", "g\n\nj"]
    assert best_only.generated == search.generated


def test_dvts_at_the_depth_returns_the_finished_children_of_the_last_expansion():
    script = table({"": ["a\n\n", "b$", "c\n\n", "d$"]})
    search, *_ = run(dvts, script, by_last(a=0.9, b=0.3, c=0.1, d=0.4), n=4, depth=1)
    assert (texts(search), search.ended) == (["b", "d"], ["depth"])
    script = table({"": ["a\n\n", "b$", "c\n\n", "d$"]})
    search, *_ = run(dvts, script, by_last(a=0.9, b=0.3, c=0.1, d=0.4), n=4, depth=1, siblings=False)
    assert texts(search) == ["d"]


@pytest.mark.parametrize(
    ("n", "widths"), [(1, [1]), (3, [3]), (4, [4]), (7, [7]), (8, [4, 4]), (11, [6, 5]), (14, [5, 5, 4])]
)
def test_dvts_trees_of_n_that_m_does_not_divide(n, widths):
    search, *_ = run(dvts, dice("a\n\n", "b\n\n"), by_hash, n=n, beam_width=4, depth=2)
    for depth in (1, 2):
        children = Counter(node.path[0] for node in search.nodes if len(node.path) - 1 == depth)
        assert [children[tree] for tree in range(len(children))] == widths


def test_one_tree_is_greedy_by_score():
    for seed in range(20):
        search, *_ = run(dvts, dice("a\n\n", "b\n\n", "c\n\n", "d$"), by_hash, n=4, seed=seed)
        at = (0,)
        while children := [node for node in search.nodes if node.path[:-1] == at]:
            best = max(children, key=lambda node: node.score)  # max() too takes the first of equals
            at = best.path
        assert best.finish == "end"
        assert best.fate == "solution"


# --- Against a naive second implementation --------------------------------------------------------


class Naive:
    """Both searches over text alone, one draw after the other, everything scored from scratch each time."""

    def __init__(self, strategy, script, rule, *, n, beam_width, depth, max_tokens, lookahead, seed):
        self.__dict__.update(locals())

    def write(self, text, path, greedy=False):
        """Text with one step more, and how that ended: "end", "stop" or "cut"."""
        start = len(text)
        while True:
            if len(text) >= self.max_tokens:
                return text, "cut"
            seed = None if greedy else node_seed(self.seed, "p1", self.strategy, self.n, path)
            piece = self.script(text, seed)
            if len(text + piece) > self.max_tokens:
                return (text + piece)[: self.max_tokens].rstrip("$"), "cut"
            text += piece.rstrip("$")
            if piece.endswith("$"):
                return text, "end"
            if text[start:].strip():
                return text, "stop"
            path = (*path, -1)

    def scores(self, text):
        steps = split_steps(text)
        return [self.rule(tuple(steps[: k + 1])) for k in range(len(steps))]

    def value(self, text, path, finished):
        best = text
        for k in range(0 if finished else self.lookahead):
            longer, how = self.write(best, (*path, -2 - k), greedy=True)
            if how == "cut":
                break
            best = longer
            if how == "end":
                break
        return (self.scores(best) or [0.0])[-1]

    def children(self, parents, count):
        """(text, path, finished, value) of the children that were not cut, in the order of the draw."""
        born = []
        for place, (text, path) in enumerate(parents):
            share = len(range(place, count, len(parents)))  # deal count cards to the parents in turn
            for i in range(share):
                longer, how = self.write(text, (*path, i))
                if how == "end" or (how == "stop" and len(longer) < self.max_tokens):
                    value = self.value(longer, (*path, i), how == "end")
                    born.append((longer, (*path, i), how == "end", value))
        return born

    def beam_search(self):
        parents, out = [("", (0,))], []
        for _ in range(self.depth):
            born = self.children(parents, self.n - len(out))
            out += [child for child in born if child[2]]
            if len(out) == self.n:
                return out, ["finished"]
            going = [child for child in born if not child[2]]
            if not going:
                return out, ["tokens"]
            parents = []
            while going and len(parents) < max(1, (self.n - len(out)) // self.beam_width):
                first_best = next(child for child in going if child[3] == max(c[3] for c in going))
                going.remove(first_best)
                parents.append(first_best[:2])
        return out, ["depth"]

    def dvts(self):
        trees = max(1, self.n // self.beam_width)
        out, ended = [], []
        for tree in range(trees):
            best, how = ("", (tree,)), "depth"
            for _ in range(self.depth):
                born = self.children([best], len(range(tree, self.n, trees)))
                if not born:
                    how = "tokens"
                    break
                best = next(child for child in born if child[3] == max(c[3] for c in born))
                if best[2]:
                    how = "finished"
                    break
                best = best[:2]
            out += [child for child in born if child[2]]
            ended.append(how)
        return out, ended


@pytest.mark.parametrize("strategy", [beam_search, dvts])
@given(
    n=st.integers(1, 12),
    width=st.integers(1, 5),
    depth=st.integers(1, 6),
    max_tokens=st.integers(1, 25),
    lookahead=st.integers(0, 2),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None)
def test_against_the_naive_implementation(strategy, n, width, depth, max_tokens, lookahead, seed):
    case = {"n": n, "beam_width": width, "depth": depth, "max_tokens": max_tokens, "lookahead": lookahead, "seed": seed}
    search, policy, prm = run(strategy, dice(*MIXED), by_hash, **case)
    naive = Naive(strategy.__name__, dice(*MIXED), by_hash, **case)
    expected, ended = getattr(naive, strategy.__name__)()
    assert [(s.text, s.path) for s in search.solutions] == [(text, path) for text, path, *_ in expected]
    assert [s.scores for s in search.solutions] == [naive.scores(text) for text, *_ in expected]
    assert [s.steps for s in search.solutions] == [split_steps(text) for text, *_ in expected]
    assert search.ended == ended
    # Each token once: what was counted is what was drawn and what the tree holds; no step was scored twice.
    assert search.generated == policy.generated
    if not lookahead:
        assert search.generated == sum(node.tokens for node in search.nodes)
        assert len(set(prm.scored)) == len(prm.scored)
        assert search.scored <= search.generated
    assert Search.from_dict(json.loads(json.dumps(search.to_dict()))) == search


# --- Degenerate equivalences ----------------------------------------------------------------------


@pytest.fixture
def same_draws(monkeypatch):
    """Both searches draw alike: a node's seed forgets the strategy."""
    monkeypatch.setattr(
        tts.tree, "node_seed", lambda seed, problem, strategy, n, path: node_seed(seed, problem, "", n, path)
    )


@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_below_2m_both_searches_are_one_tree_until_a_first_child_finishes(same_draws, n):
    parted = 0
    for seed in range(60):
        beam, *_ = run(
            beam_search, dice("a\n\n", "b\n\n", "c\n\n", "\n\n", "d$"), by_hash, n=n, beam_width=4, seed=seed
        )
        tree, *_ = run(dvts, dice("a\n\n", "b\n\n", "c\n\n", "\n\n", "d$"), by_hash, n=n, beam_width=4, seed=seed)
        first = min(len(node.path) for node in beam.nodes if node.finish == "end")

        def drawn(search, first=first):
            return [(node.path, node.text, node.score) for node in search.nodes if len(node.path) <= first]

        assert drawn(beam) == drawn(tree)
        earlier = [node.path for node in beam.nodes if len(node.path) < first and node.fate == "kept"]
        assert earlier == [node.path for node in tree.nodes if len(node.path) < first and node.fate == "kept"]
        assert len(beam.solutions) == n
        parted += len(tree.solutions) < n
    assert parted or n == 1, "afterwards they part: beam search goes on until it has N"


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_one_step_and_width_n_is_best_of_n(strategy):
    """Solutions of one step: the search draws and scores N of them and returns all, as Best-of-N does."""
    steps = ["a$", "b$", "a$", "c$", "d$"]
    rule = by_last(a=0.1, b=0.9, c=0.4, d=0.4)
    search, *_ = run(strategy, table({"": steps}), rule, n=5, beam_width=5, depth=1)
    best, *_ = run(best_of_n, table({"": steps}), rule, n=5)
    assert [(s.text, s.steps, s.scores, s.tokens, s.logprob) for s in search.solutions] == [
        (s.text, s.steps, s.scores, s.tokens, s.logprob) for s in best.solutions
    ]
    assert (search.ended, best.ended) == (["finished"], ["finished"] * 5)
    assert (search.generated, search.scored) == (best.generated, best.scored) == (10, 8)


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_width_1_is_independent_sampling(strategy):
    """M = 1: no branch depends on a score; N chains, each as the policy would have written it alone."""
    chains = {"": ["a\n\n", "d$", "e\n\n"], "a\n\n": ["b\n\n"], "a\n\nb\n\n": ["c$"], "e\n\n": ["f$"]}
    for rule in (by_hash, lambda steps: 0.0, lambda steps: 1 / len("".join(steps))):
        search, *_ = run(strategy, table(chains), rule, n=3, beam_width=1)
        assert sorted(texts(search)) == ["a\n\nb\n\nc", "d", "e\n\nf"]


def test_dvts_of_width_1_draws_what_whole_samples_are():
    """The same chains sampled whole: same solutions in the same order."""
    whole = {sample_seed(0, "p1", i): text for i, text in enumerate(["a\n\nb\n\nc$", "d$", "e\n\nf$"])}
    samples, *_ = run(majority, lambda written, seed: whole[seed], n=3)
    chains = {"": ["a\n\n", "d$", "e\n\n"], "a\n\n": ["b\n\n"], "a\n\nb\n\n": ["c$"], "e\n\n": ["f$"]}
    search, *_ = run(dvts, table(chains), by_hash, n=3, beam_width=1)
    assert [(s.text, s.steps, s.tokens, s.logprob) for s in search.solutions] == [
        (s.text, s.steps, s.tokens, s.logprob) for s in samples.solutions
    ]


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_a_constant_scorer_keeps_the_first(strategy):
    for seed in range(10):
        search, *_ = run(strategy, dice("a\n\n", "b\n\n", "c$"), lambda steps: 0.5, n=4, seed=seed)
        for node in search.nodes:
            if node.fate == "kept":
                rivals = [
                    other for other in search.nodes if other.path[:-1] == node.path[:-1] and other.path < node.path
                ]
                assert all(other.finish == "end" for other in rivals), "only finished ones stand before the kept one"


# --- Duplicates -----------------------------------------------------------------------------------


def test_duplicates_are_counted_and_scored_once():
    script = table({"": ["a\n\n", "a\n\n", "b\n\n", "a\n\n"], "a\n\n": ["c$", "c$", "d$", "c$"]})
    search, _, prm = run(beam_search, script, by_last(a=0.9, b=0.1, c=0.2, d=0.3), n=4, beam_width=2)
    assert search.duplicates == 2 + 1, "a repeats twice, c once; cousins are no siblings"
    assert sorted(steps for _, steps in prm.scored) == [("a\n\n",), ("a\n\n", "c"), ("a\n\n", "d"), ("b\n\n",)]
    assert search.scored == 3 + 3 + 2 + 2
    assert search.generated == 12 + 8


def test_dropping_duplicates_leaves_the_places_to_others():
    """N = 4, M = 2: with copies a, a are kept; without them a and b."""
    draws = {"": ["a\n\n", "a\n\n", "b\n\n", "a\n\n"], "a\n\n": ["c$", "c$"], "b\n\n": ["d$", "e$"]}
    scores = by_last(a=0.9, b=0.1, c=0.2, d=0.3, e=0.4)
    search, *_ = run(beam_search, table(draws), scores, n=4, beam_width=2, drop_duplicates=True)
    assert texts(search) == ["a\n\nc", "a\n\nc", "b\n\nd", "b\n\ne"], "a finished copy is a vote and stays"
    assert search.duplicates == 3
    dropped = [node for node in search.nodes if node.fate == "duplicate"]
    assert [(node.path, node.score) for node in dropped] == [((0, 1), None), ((0, 3), None)]
    assert search.generated == 12 + 8, "dropped ones were paid for"


# --- Empty steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_white_space_is_part_of_the_next_step(strategy):
    """The policy is asked again, with another seed, until it has written a step; that costs no depth."""
    script = table({"": ["\n\n"], "\n\n": [" \n\n"], "\n\n \n\n": ["a\n\n"], "\n\n \n\na\n\n": ["b$"]})
    search, policy, prm = run(strategy, script, lambda steps: 0.5, n=1, depth=2)
    assert [s.steps for s in search.solutions] == [["\n\n \n\na\n\n", "b"]]
    assert [len(steps) for _, steps in prm.scored] == [1, 2]
    assert len({seed for _, _, seed, _ in policy.requests}) == 4
    assert [s.tokens for s in search.solutions] == [2 + 3 + 3 + 2] == [search.generated]


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_no_phantom_step_after_a_trailing_blank_line(strategy):
    """The reference scores the empty step after a trailing blank line as a step of its own."""
    script = table({"": ["a\n\n"], "a\n\n": ["b\n\n"], "a\n\nb\n\n": ["$"]})
    search, _, prm = run(strategy, script, by_last(a=0.2, b=0.7), n=1)
    assert [(s.steps, s.scores) for s in search.solutions] == [(["a\n\n", "b\n\n"], [0.2, 0.7])]
    assert len(prm.scored) == 2
    assert (search.nodes[-1].text, search.nodes[-1].score, search.nodes[-1].tokens) == ("", 0.7, 1)


def test_blank_lines_before_the_end_belong_to_the_last_step():
    script = table({"": ["a\n\n"], "a\n\n": ["\n\n"], "a\n\n\n\n": ["$"]})
    search, *_ = run(beam_search, script, by_last(a=0.2), n=1)
    assert [(s.text, s.steps, s.scores) for s in search.solutions] == [("a\n\n\n\n", ["a\n\n\n\n"], [0.2])]


@pytest.mark.parametrize("strategy", [beam_search, dvts, best_of_n])
def test_a_blank_solution_has_no_steps_and_the_lowest_value(strategy):
    search, _, prm = run(strategy, table({"": ["$", "a$"]}), by_last(a=0.1), n=2)
    assert [(s.text, s.steps, s.scores, s.tokens) for s in search.solutions] == [
        ("", [], [], 1),
        ("a", ["a"], [0.1], 2),
    ]
    assert len(prm.scored) == 1


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_nothing_but_white_space_ends_with_the_tokens(strategy):
    search, policy, prm = run(strategy, dice("\n\n"), by_hash, n=2, max_tokens=9)
    assert (search.solutions, search.ended, prm.scored) == ([], ["tokens"], [])
    assert search.generated == 18
    assert len(policy.requests) == 10


class Mute(ScriptedPolicy):
    async def sample(self, prefix, sampling, *, stop=None):
        return tts.tree.Completion((), "", 0.0, "stop")


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_an_engine_that_returns_nothing_is_an_error_not_a_loop(strategy):
    with pytest.raises(EngineError, match="stopped without a token"):
        asyncio.run(strategy(PROBLEM, Mute(None), ScriptedScorer(by_hash), n=2))


@given(st.text(alphabet="ab \n", max_size=30))
def test_split_steps_is_lossless_and_never_empty(text):
    steps = split_steps(text)
    assert "".join(steps) == (text if text.strip() else "")
    assert all(step.strip() for step in steps)
    assert all(step.rstrip(" \n") != step and "\n\n" in step for step in steps[:-1])


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n\n\n", []),
        ("a", ["a"]),
        ("a\n\n", ["a\n\n"]),
        ("a\nb\n\nc", ["a\nb\n\n", "c"]),
        ("a\n\nb\n\n\n\n", ["a\n\n", "b\n\n\n\n"]),
        ("a\n\n\nb", ["a\n\n", "\nb"]),
        ("a\n\n\n\nb", ["a\n\n", "\n\nb"]),
        ("\n\na\n\nb ", ["\n\na\n\n", "b "]),
    ],
)
def test_split_steps_by_hand(text, steps):
    assert split_steps(text) == steps


@given(st.integers(0, 10**6))
def test_best_of_n_splits_where_a_search_would_have(seed):
    search, *_ = run(dvts, dice(*MIXED), by_hash, n=3, beam_width=1, seed=seed)
    assert all(split_steps(solution.text) == solution.steps for solution in search.solutions)


# --- Records --------------------------------------------------------------------------------------

# As stores hold it, byte for byte: a record must stay readable.
RECORD = (
    '{"strategy": "dvts", "problem": "p1", "n": 2, "solutions": [{"text": "a\\n\\nb", "steps": ["a\\n\\n", "b"], '
    '"scores": [1, 0.5], "tokens": 5, "logprob": -4.0, "finish": "end", "path": [0, 1, 0]}], "ended": ["finished"], '
    '"nodes": [{"path": [0, 0], "text": "c", "tokens": 1, "logprob": -1.0, "finish": "length", "score": null, '
    '"value": null, "lookahead": "", "fate": "tokens"}, {"path": [0, 1], "text": "a\\n\\n", "tokens": 3, '
    '"logprob": -3.0, "finish": "stop", "score": 1, "value": 0.25, "lookahead": "d", "fate": "kept"}], '
    '"generated": 7, "scored": 5, "duplicates": 1}'
)


def test_a_search_as_a_record():
    kept = Node((0, 1), "a\n\n", 3, -3.0, "stop", score=1, value=0.25, lookahead="d", fate="kept")
    search = Search(
        strategy="dvts",
        problem="p1",
        n=2,
        solutions=[Solution("a\n\nb", ["a\n\n", "b"], [1, 0.5], 5, -4.0, "end", path=(0, 1, 0))],
        ended=["finished"],
        nodes=[Node((0, 0), "c", 1, -1.0, "length", fate="tokens"), kept],
        generated=7,
        scored=5,
        duplicates=1,
    )
    assert json.dumps(search.to_dict()) == RECORD
    again = Search.from_dict(json.loads(RECORD))
    assert again == search
    assert isinstance(again.nodes[0].path, tuple)
    assert isinstance(again.solutions[0].path, tuple)


def test_a_record_of_a_scorer_that_returns_numpys_numbers():
    search, *_ = run(beam_search, dice(*MIXED), lambda steps: np.float64(by_hash(steps)), n=np.int64(4))
    plain, *_ = run(beam_search, dice(*MIXED), by_hash, n=4)
    assert json.dumps(search.to_dict()) == json.dumps(plain.to_dict())


# --- Lookahead ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_lookahead_ranks_by_the_score_some_greedy_steps_later(strategy):
    """a looks better than b but leads to x: one greedy step ahead chooses b. It is no part of a solution."""
    draws = {"": ["a\n\n", "b\n\n"], "a\n\n": ["c$", "d$"], "b\n\n": ["e$", "f$"]}
    greedy = {"a\n\n": "x\n\n", "b\n\n": "y\n\n"}
    scores = by_last(a=0.9, b=0.1, x=0.2, y=0.8, c=0, d=0, e=0, f=0)
    plain, *_ = run(strategy, table(draws, greedy), scores, n=2)
    assert texts(plain) == ["a\n\nc", "a\n\nd"]
    ahead, policy, prm = run(strategy, table(draws, greedy), scores, n=2, lookahead=1)
    assert texts(ahead) == ["b\n\ne", "b\n\nf"]
    assert [s.scores for s in ahead.solutions] == [[0.1, 0], [0.1, 0]]
    b = next(node for node in ahead.nodes if node.text == "b\n\n")
    assert (b.score, b.value, b.lookahead) == (0.1, 0.8, "y\n\n")
    assert ahead.generated == ahead.scored == plain.generated + 6 == policy.generated
    assert [temperature for _, written, _, temperature in policy.requests if temperature == 0] == [0.0, 0.0]
    assert len(set(prm.scored)) == len(prm.scored)


def test_lookahead_ends_with_the_turn_and_with_the_tokens():
    """a's greedy continuation ends its turn after one step, b's is cut: a is ranked by x, b by itself."""
    draws = {"": ["a\n\n", "b\n\n"], "b\n\n": ["e$", "f$"]}
    greedy = {"a\n\n": "x$", "b\n\n": "too long"}
    scores = by_last(a=0.9, b=0.5, x=0.2, e=0, f=0)
    search, *_ = run(beam_search, table(draws, greedy), scores, n=2, lookahead=3, max_tokens=6)
    assert texts(search) == ["b\n\ne", "b\n\nf"]
    assert [(node.text, node.value, node.lookahead) for node in search.nodes][:2] == [
        ("a\n\n", 0.2, "x"),
        ("b\n\n", 0.5, ""),
    ]
    assert search.generated == 6 + 2 + 3 + 4
    assert search.scored == 6 + 2 + 4


def test_an_end_after_a_blank_line_is_not_ranked_by_its_parents_lookahead():
    """a led on to x (0.9), but ending at a is worth a's own 0.1: less than ac."""
    draws = {"": ["a\n\n", "b\n\n"], "a\n\n": ["$", "c$"]}
    greedy = {"a\n\n": "x\n\n", "b\n\n": "y\n\n"}
    scores = by_last(a=0.1, b=0.2, x=0.9, y=0.3, c=0.5)
    search, *_ = run(dvts, table(draws, greedy), scores, n=2, lookahead=1, siblings=False)
    assert texts(search) == ["a\n\nc"]
    assert [(node.text, node.value) for node in search.nodes][1:3] == [("", 0.1), ("c", 0.5)]


# --- Independent samples --------------------------------------------------------------------------


def test_majority_and_best_of_n_share_their_samples():
    """The same seeds for every n and both strategies: nothing has to be sampled twice."""
    searches = [run(strategy, dice(*MIXED), by_hash, n=n, seed=5) for strategy in (majority, best_of_n) for n in (2, 8)]
    seeds = [[seed for _, _, seed, _ in policy.requests] for _, policy, _ in searches]
    assert seeds[0] == seeds[2] == [sample_seed(5, "p1", i) for i in range(2)]
    assert seeds[1] == seeds[3] == [sample_seed(5, "p1", i) for i in range(8)]
    whole = [texts(search) for search, *_ in searches]
    assert whole[0] == whole[2] == whole[1][:2]
    assert whole[1] == whole[3]


def test_best_of_n_scores_each_distinct_solution_once_and_whole():
    samples = ["a\n\nb$", "a\n\nb$", "a\n\nc$"]
    search, policy, prm = run(best_of_n, table({"": samples}), by_last(a=0.9, b=0.1, c=0.6), n=3)
    assert [s.scores for s in search.solutions] == [[0.9, 0.1], [0.9, 0.1], [0.9, 0.6]]
    assert prm.scored == [("Q", ("a\n\n",)), ("Q", ("a\n\n", "b")), ("Q", ("a\n\n",)), ("Q", ("a\n\n", "c"))]
    assert (search.generated, search.scored) == (15, 10)
    assert policy.generated == 15


@pytest.mark.parametrize(("limits", "reason"), [({"max_tokens": 4}, "tokens"), ({"context": 2 + 4}, "context")])
def test_a_cut_sample_stays_and_says_so(limits, reason):
    search, *_ = run(best_of_n, table({"": ["a\n\nb$", "c$"]}), by_last(a=0.9, b=0.1, c=0.6), n=2, **limits)
    assert [(s.text, s.finish, s.tokens, s.scores) for s in search.solutions] == [
        ("a\n\nb", "length", 4, [0.9, 0.1]),
        ("c", "end", 2, [0.6]),
    ]
    assert search.ended == [reason, "finished"]


# --- Many problems at once ------------------------------------------------------------------------

PROBLEMS = [Problem(id=f"p{i}", text=f"Q{i}", answer="1") for i in range(12)]


@pytest.mark.parametrize("slow", ["policy", "scorer"])
@pytest.mark.parametrize("strategy", [beam_search, dvts, best_of_n])
def test_no_problem_waits_for_another(strategy, slow):
    """One problem is held up until all the others are done."""

    async def main():
        others_done = asyncio.Event()

        async def gate(problem, _):
            if problem == "Q0":
                await others_done.wait()

        policy = ScriptedPolicy(dice(*MIXED), **({"gate": gate} if slow == "policy" else {}))
        prm = ScriptedScorer(by_hash, **({"gate": gate} if slow == "scorer" else {}))
        tasks = [asyncio.create_task(strategy(problem, policy, prm, n=8)) for problem in PROBLEMS]
        await asyncio.gather(*tasks[1:])
        assert not tasks[0].done()
        others_done.set()
        await tasks[0]

    asyncio.run(asyncio.wait_for(main(), timeout=60))


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_the_scorer_reads_while_the_policy_writes(strategy):
    """Each waits for the other's work on another problem: lock-step over problems, or one at a time, would hang."""

    async def main():
        scoring, writing = asyncio.Event(), asyncio.Event()

        async def write(problem, written):
            if problem == "Q0" and not written:
                await scoring.wait()  # problem 1 is with the scorer
                writing.set()

        async def read(problem, _):
            if problem == "Q1":
                scoring.set()
                await writing.wait()  # problem 0 is with the policy

        policy, prm = ScriptedPolicy(dice(*MIXED), gate=write), ScriptedScorer(by_hash, gate=read)
        await asyncio.gather(
            *(strategy(problem, policy, prm, n=4, sampling=Sampling(seed=1)) for problem in PROBLEMS[:2])
        )

    asyncio.run(asyncio.wait_for(main(), timeout=60))


@pytest.mark.parametrize("strategy", [beam_search, dvts, best_of_n])
def test_results_do_not_depend_on_what_runs_beside(strategy):
    """Alone, and among others with every request held up for a random while: the same to the last field."""
    settings = {"n": 8, "max_tokens": 40, "seed": 3}
    alone = [run(strategy, dice(*MIXED), by_hash, problem=problem, **settings)[0] for problem in PROBLEMS]

    async def together(chance):
        async def gate(*_):
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)

        policy, prm = ScriptedPolicy(dice(*MIXED), gate=gate), ScriptedScorer(by_hash, gate=gate)
        return await asyncio.gather(
            *(strategy(problem, policy, prm, **with_sampling(**settings)) for problem in PROBLEMS)
        )

    for order in range(3):
        assert asyncio.run(together(random.Random(order))) == alone


@pytest.mark.parametrize("strategy", [beam_search, dvts, best_of_n])
@pytest.mark.parametrize("broken", ["policy", "scorer"])
def test_an_engine_error_ends_the_problem_and_leaves_nothing_running(strategy, broken):
    async def main():
        before, forever, calls = asyncio.all_tasks(), asyncio.Event(), []

        async def gate(*_):
            calls.append(None)
            if len(calls) == 3:
                raise EngineError("out of memory")
            await forever.wait()

        policy = ScriptedPolicy(dice("a\n\n", "b\n\n", "c\n\n", "d$"), **({"gate": gate} if broken == "policy" else {}))
        prm = ScriptedScorer(by_hash, **({"gate": gate} if broken == "scorer" else {}))
        with pytest.raises(EngineError, match="out of memory"):
            await strategy(PROBLEM, policy, prm, n=16)
        assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(main(), timeout=60))


# --- Seeds and bad input --------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_each_request_has_a_seed_of_its_own(strategy):
    search, policy, _ = run(strategy, dice(*MIXED), by_hash, n=16, seed=2)
    seeds = [seed for _, _, seed, _ in policy.requests]
    assert len(set(seeds)) == len(seeds)
    for node in search.nodes:
        assert node_seed(2, "p1", strategy.__name__, 16, node.path) in seeds
    other, *_ = run(strategy, dice(*MIXED), by_hash, n=16, seed=3)
    assert texts(other) != texts(search)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 2.5}, "n is 2.5"),
        ({"beam_width": 0}, "beam_width is 0"),
        ({"depth": 0}, "depth is 0"),
        ({"lookahead": -1}, "lookahead is -1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_sampled(setting, message):
    for strategy in (majority, best_of_n, beam_search, dvts):
        if strategy in (majority, best_of_n) and setting.keys() & {"beam_width", "depth", "lookahead"}:
            continue
        policy = ScriptedPolicy(dice("a$"))
        scorers = () if strategy is majority else (ScriptedScorer(by_hash),)
        with pytest.raises(InputError, match=message):
            asyncio.run(strategy(PROBLEM, policy, *scorers, **{"n": 4} | setting))
        assert policy.requests == []


# --- A scorer whose context is shorter than the policy's -------------------------------------------


class ShortScorer(ScriptedScorer):
    """Refuses what has more than so many letters, as a scorer with a short context does."""

    def __init__(self, rule, room):
        super().__init__(rule)
        self.room = room

    async def score(self, problem, steps, *, known=()):
        if len("".join(steps)) > self.room:
            raise ContextExceeded("too long")
        return await super().score(problem, steps, known=known)


def test_a_solution_too_long_for_the_scorer_stays_without_scores():
    policy, prm = ScriptedPolicy(table({"": ["a$", "bbbbbb$"]})), ShortScorer(by_last(a=0.5), 3)
    search = asyncio.run(best_of_n(PROBLEM, policy, prm, n=2))
    assert [solution.scores for solution in search.solutions] == [[0.5], []]
    assert search.ended == ["finished", "context"]


@pytest.mark.parametrize("strategy", [beam_search, dvts])
def test_a_branch_too_long_for_the_scorer_is_cut(strategy):
    script = table({"": ["aaaaaa$", "b$"], "b": []})
    policy, prm = ScriptedPolicy(script), ShortScorer(by_last(b=0.5), 3)
    search = asyncio.run(strategy(PROBLEM, policy, prm, n=2, beam_width=2, depth=1))
    assert texts(search) == ["b"]
    assert fates(search) == {(0,): "context", (1,): "solution"}
