"""The same searches on two other schedules, as plain loops over the same engines: what bench.search compares with.

published()  the schedule of the reference code (huggingface/search-and-learn): beam search takes one problem at a time,
             DVTS 25; all children of a step are drawn, then all are scored, each with its whole prefix and copies too;
             and beam search goes on expanding N after N have finished, until nothing is left, and returns the first N.
lock_step()  our own algorithm, all problems in step: all expand and wait for the last one, all are scored and wait.

Seeds, ties and what counts as finished are those of tts.strategies, so that the solutions are the same wherever the
algorithm is. In the searches that they return `ended` and `duplicates` are left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from inspect import signature

from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem
from tts.reductions import reduce_scores
from tts.strategies import beam_search
from tts.tree import Branch, Search, Tree, divide, score_whole, together

DEFAULTS = {
    name: setting.default for name, setting in signature(beam_search).parameters.items()
}  # and dvts has the same
BATCH = {"beam_search": 1, "dvts": 25}  # problems that the reference takes at a time

# What to expand, and to how many children in all -> these children, scored -> the solutions.
Growth = Generator[tuple[list[Branch], int], list[Branch], list[Branch]]
Scoring = Callable[[Tree, Sequence[Branch]], Awaitable[list[Branch]]]


async def published(
    problems: Sequence[Problem],
    strategy: str,
    policy: Policy,
    prm: StepScorer,
    *,
    n: int,
    beam_width: int = DEFAULTS["beam_width"],
    depth: int = DEFAULTS["depth"],
    sampling: Sampling = Sampling(),
) -> list[Search]:
    """A search for each problem as the reference makes them; strategy is "beam_search" or "dvts".

    prm is to compute every score anew (open_prm's prefix_cache=False does not go that far: scores are remembered).
    """
    trees = plant(problems, strategy, policy, prm, n=n, beam_width=beam_width, depth=depth, sampling=sampling)
    found: list[Search] = []
    for start in range(0, len(trees), BATCH[strategy]):
        found += await _together(
            trees[start : start + BATCH[strategy]], beam_width, depth, score_prefixes, goes_on=True
        )
    return found


async def lock_step(
    problems: Sequence[Problem],
    strategy: str,
    policy: Policy,
    prm: StepScorer,
    *,
    n: int,
    beam_width: int = DEFAULTS["beam_width"],
    depth: int = DEFAULTS["depth"],
    sampling: Sampling = Sampling(),
) -> list[Search]:
    """A search for each problem, as tts.strategies makes them but with a barrier after each half of a step."""
    trees = plant(problems, strategy, policy, prm, n=n, beam_width=beam_width, depth=depth, sampling=sampling)
    return await _together(trees, beam_width, depth, Tree.score_all, goes_on=False)


def plant(
    problems: Sequence[Problem], strategy: str, policy: Policy, prm: StepScorer, **settings: object
) -> list[Tree]:
    """An empty tree for each problem, with the strategies' defaults for what the schedules don't vary."""
    settings |= {name: DEFAULTS[name] for name in ("lookahead", "drop_duplicates")}
    return [Tree(strategy=strategy, problem=problem, policy=policy, prm=prm, **settings) for problem in problems]


async def _together(trees: Sequence[Tree], width: int, depth: int, score: Scoring, *, goes_on: bool) -> list[Search]:
    growths: list[tuple[Tree, Growth]] = []
    for tree in trees:
        if tree.strategy == "dvts":
            widths = divide(tree.n, max(1, tree.n // width))
            growths += [(tree, descend(tree, number, share, depth)) for number, share in enumerate(widths)]
        else:
            growths.append((tree, beam(tree, width, depth, goes_on=goes_on)))
    solutions: dict[Growth, list[Branch]] = {}
    wanted = {growth: next(growth) for _, growth in growths}
    while wanted:
        alive = [(tree, growth) for tree, growth in growths if growth in wanted]
        # 1. All expand, and wait for the last one.
        drawn = await together(tree.expand_all(*wanted[growth]) for tree, growth in alive)
        # 2. All are scored, and wait for the last one.
        scored = await together(score(tree, children) for (tree, _), children in zip(alive, drawn, strict=True))
        # 3. Each chooses what to expand next, or has ended.
        for (_, growth), children in zip(alive, scored, strict=True):
            try:
                wanted[growth] = growth.send(children)
            except StopIteration as done:
                solutions[growth] = done.value
                del wanted[growth]
    return [
        tree.result([branch for owner, growth in growths if owner is tree for branch in solutions[growth]], [])
        for tree in trees
    ]


def beam(tree: Tree, width: int, depth: int, *, goes_on: bool) -> Growth:
    """Beam search; goes_on: to N children at each step, as if none had finished, until none is unfinished."""
    kept, finished = [tree.root(0)], []
    missing = tree.n
    for _ in range(depth):
        children = yield kept, missing
        finished += [child for child in children if child.finished]
        unfinished = [child for child in children if not child.finished]
        missing = tree.n if goes_on else tree.n - len(finished)
        if not missing or not unfinished:
            break
        kept = tree.keep(unfinished, max(1, missing // width))
    return finished[: tree.n]


def descend(tree: Tree, number: int, width: int, depth: int) -> Growth:
    """One of the trees of DVTS."""
    best = tree.root(number)
    for _ in range(depth):
        children = yield [best], width
        if not children:
            break
        [best] = tree.keep(children, 1)
        if best.finished:
            break
    return [child for child in children if child.finished]


async def score_prefixes(tree: Tree, children: Sequence[Branch]) -> list[Branch]:
    """Score all steps of each child anew; returns the children that were not too long for the scorer."""

    async def score(child: Branch) -> bool:
        child.scores = await score_whole(tree.prm, tree.problem, child.steps) if child.steps else []
        if child.steps and not child.scores:
            child.node.fate = tree.limit = "context"
            return False
        child.node.score = child.node.value = reduce_scores(child.scores, "last")
        return True

    scored = await together(score(child) for child in children)
    return [child for child, has_score in zip(children, scored, strict=True) if has_score]
