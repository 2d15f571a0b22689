"""What a strategy returns (Solution, Node, Search), and the one thing that beam search and DVTS share: their step.

A step is what the policy writes up to a blank line. White space alone is no step: it belongs to the step after it or,
at the end of a solution, to the step before it. So a blank line at the end makes no phantom step, and nothing empty is
scored.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import msgspec

from tts.errors import ContextExceeded, EngineError, check_counts
from tts.policy import Completion, Finish, Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem
from tts.reductions import reduce_scores
from tts.seeds import node_seed

STEP_END = "\n\n"
# In a seed's path: what follows white space; lookahead step k is AHEAD - k. Children count from 0.
BLANK, AHEAD = -1, -2

# What became of a step: the last one of a solution that was returned; expanded (or the depth ended it); not chosen;
# a copy of a sibling, dropped before it was scored; cut by the limit on tokens; cut by the context.
Fate = Literal["solution", "kept", "dropped", "duplicate", "tokens", "context"]
Limit = Literal["tokens", "context"]

T = TypeVar("T")


class Solution(msgspec.Struct):
    """One solution; a search returns finished ones only."""

    text: str
    steps: list[str]  # "".join(steps) == text, except that a blank text has no steps
    scores: list[float]  # one a step, in [0, 1]; empty where there was no scorer
    tokens: int  # sampled from the first step on, shared ones and the end-of-turn token too
    logprob: float  # their natural log-probability under the untempered model
    finish: Finish  # "end", or "length" for an independent sample that was cut
    path: tuple[int, ...]  # its last node; (i,) for independent sample i


class Node(msgspec.Struct, gc=False):  # a table of searches has a million: the collector need not look at them
    """One step that a search drew."""

    path: tuple[int, ...]  # (tree, child, child, ...): the parent is path[:-1]; a root, (tree,), has no node
    text: str
    tokens: int
    logprob: float
    finish: Finish
    score: float | None = None  # of this step (a blank one: of the step before); None where it was not scored
    value: float | None = None  # what ranked it: its score or, with lookahead, the score some greedy steps later
    lookahead: str = ""  # these steps; they are no part of any solution
    fate: Fate = "dropped"


@dataclass
class Search:
    """What one strategy did with one problem."""

    strategy: str
    problem: str  # its id
    n: int
    solutions: list[Solution]  # by index of the sample; by the step of the beam at which they finished; by tree of DVTS
    ended: list[str]  # what ended each tree (or independent sample): "finished", "depth", "tokens" or "context"
    nodes: list[Node] = field(default_factory=list)  # by path; independent samples have none
    generated: int = 0  # tokens sampled: those of all nodes and of the lookahead
    scored: int = 0  # tokens of the steps that were given to the scorer as new
    duplicates: int = 0  # children that repeat a sibling drawn before them

    def to_dict(self) -> dict[str, object]:
        """As plain JSON data."""
        return msgspec.to_builtins(self, enc_hook=lambda number: number.item())  # a scorer may return numpy's numbers

    @classmethod
    def from_dict(cls, record: dict[str, object] | msgspec.Raw) -> Search:
        """The inverse of to_dict, also after a round trip through a file, and of its JSON as the store returns it."""
        return (
            msgspec.json.decode(record, type=cls) if isinstance(record, msgspec.Raw) else msgspec.convert(record, cls)
        )


@dataclass
class Branch:
    """A partial solution: the path from a root to one node."""

    path: tuple[int, ...]
    prefix: tuple[int, ...]  # token ids of the prompt and all steps: what the next step continues
    steps: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # one a step; the newest is missing until it is scored
    logprob: float = 0.0
    node: Node | None = None  # its last step; a root has none

    @property
    def finished(self) -> bool:
        """Whether the model ended its turn, which is not the same as having been cut."""
        return self.node.finish == "end"


@dataclass(kw_only=True)
class Tree:
    """The settings of one search and all that it has drawn, so that the searches name only what they would on paper."""

    strategy: str
    problem: Problem
    policy: Policy
    prm: StepScorer
    n: int
    beam_width: int
    depth: int
    lookahead: int
    drop_duplicates: bool
    sampling: Sampling

    def __post_init__(self):
        check_counts(n=self.n, beam_width=self.beam_width, depth=self.depth)
        check_counts(0, lookahead=self.lookahead)
        self.prompt = tuple(self.policy.prompt(self.problem.text))
        self.end, self.limit = cut_at(self.policy, self.prompt, self.sampling.max_tokens)
        self.search = Search(self.strategy, self.problem.id, self.n, [], [])
        self.scoring: dict[tuple[bool | str, ...], asyncio.Future] = {}  # by finished and steps

    def root(self, number: int) -> Branch:
        """The empty solution, from which tree number grows."""
        return Branch((number,), self.prompt)

    async def step(self, parents: Sequence[Branch], count: int) -> list[Branch]:
        """Expand parents, best first, to count children in all, and score each one's new step; without what was cut."""
        return await self.score_all(await self.expand_all(parents, count))

    async def expand_all(self, parents: Sequence[Branch], count: int) -> list[Branch]:
        """The children, spread evenly, the first parents get one more; without those that were cut, and without
        unfinished copies of a sibling if they are to be dropped.
        """
        shares = divide(count, len(parents))
        children = await together(
            self.expand(parent, i) for parent, share in zip(parents, shares, strict=True) for i in range(share)
        )
        drawn, alive = set(), []
        for child in children:
            copy = (child.path[:-1], child.node.text, child.node.finish)
            repeats = copy in drawn
            drawn.add(copy)
            self.search.duplicates += repeats
            if child.node.finish == "length" or (not child.finished and len(child.prefix) >= self.end):
                child.node.fate = self.limit
            elif repeats and self.drop_duplicates and not child.finished:
                child.node.fate = "duplicate"
            else:
                alive.append(child)
        return alive

    async def score_all(self, children: Sequence[Branch]) -> list[Branch]:
        """Score each child's new step; returns those that are not too long for the scorer."""
        scored = await together(self.score(child) for child in children)
        return [child for child, has_score in zip(children, scored, strict=True) if has_score]

    async def expand(self, parent: Branch, i: int) -> Branch:
        """Child i of a parent: one more step, continued from the parent's tokens, with a seed of its own."""
        path = (*parent.path, i)
        drawn = await self.draw(parent.prefix, path, self.sampling)
        node = Node(path, drawn.text, count_tokens(drawn), drawn.logprob, drawn.finish)
        self.search.nodes.append(node)
        if drawn.text.strip():
            steps = [*parent.steps, drawn.text]
        else:  # the turn ended after a blank line: no step of its own
            steps = [*parent.steps[:-1], *(step + drawn.text for step in parent.steps[-1:])]
        return Branch(path, parent.prefix + drawn.token_ids, steps, parent.scores, parent.logprob + drawn.logprob, node)

    async def draw(self, prefix: tuple[int, ...], path: tuple[int, ...], sampling: Sampling) -> Completion:
        """The step after prefix. After white space alone the policy goes on, until it has written a step or ends."""
        drawn = Completion((), "", 0.0, "stop")
        while drawn.finish == "stop" and not drawn.text.strip():
            room = self.end - len(prefix) - len(drawn.token_ids)
            if room < 1:
                return replace(drawn, finish="length")
            seed = node_seed(sampling.seed, self.problem.id, self.strategy, self.n, path)
            request = replace(sampling, max_tokens=room, seed=seed)
            more = await self.policy.sample(prefix + drawn.token_ids, request, stop=STEP_END)
            if more.finish == "stop" and not more.token_ids:
                raise EngineError(f"policy {self.policy.name} stopped without a token (problem {self.problem.id})")
            self.search.generated += count_tokens(more)
            ids, text = drawn.token_ids + more.token_ids, drawn.text + more.text
            drawn = Completion(ids, text, drawn.logprob + more.logprob, more.finish)
            path = (*path, BLANK)
        return drawn

    async def score(self, child: Branch) -> bool:
        """Score a child's new step, or cut the child where the scorer's context is too short for it.

        Equal steps after equal steps share one call, also while it is under way.
        """
        key = (child.finished, *child.steps)
        if key not in self.scoring:
            self.scoring[key] = asyncio.ensure_future(self.look_ahead_and_score(child))
        try:
            scores, child.node.lookahead = await self.scoring[key]
        except ContextExceeded:
            child.node.fate = self.limit = "context"
            return False
        child.scores = scores[: len(child.steps)]
        child.node.score = reduce_scores(child.scores, "last")
        child.node.value = reduce_scores(scores, "last")
        return True

    async def look_ahead_and_score(self, child: Branch) -> tuple[list[float], str]:
        """The scores of a child's steps followed by those of its lookahead, and the lookahead's text."""
        ahead, prefix, new = [], child.prefix, child.node.tokens
        greedy = replace(self.sampling, temperature=0.0)
        for k in range(0 if child.finished else self.lookahead):
            drawn = await self.draw(prefix, (*child.path, AHEAD - k), greedy)
            if drawn.finish == "length":
                break
            if drawn.text.strip():
                ahead.append(drawn.text)
                new += count_tokens(drawn)
            if drawn.finish == "end":
                break
            prefix += drawn.token_ids
        steps = child.steps + ahead
        if len(steps) == len(child.scores):  # the turn ended after a blank line: no new step
            return child.scores, ""
        self.search.scored += new
        return list(await self.prm.score(self.problem.text, steps, known=child.scores)), "".join(ahead)

    def keep(self, children: Sequence[Branch], count: int) -> list[Branch]:
        """The best children, best first; ties go to the first in the order of the draw."""
        kept = sorted(children, key=lambda child: -child.node.value)[:count]  # a stable sort
        for child in kept:
            child.node.fate = "kept"
        return kept

    def result(self, solutions: Sequence[Branch], ended: list[str]) -> Search:
        """The search with these finished branches as its solutions."""
        for branch in solutions:
            branch.node.fate = "solution"
            text = "".join(branch.steps) or branch.node.text
            tokens = len(branch.prefix) - len(self.prompt) + 1  # and the end-of-turn token
            self.search.solutions.append(
                Solution(text, branch.steps, branch.scores, tokens, branch.logprob, "end", branch.path)
            )
        self.search.nodes.sort(key=lambda node: node.path)
        self.search.ended = ended
        return self.search


def split_steps(text: str) -> list[str]:
    """Cut a whole solution into steps where a search would have: "".join(steps) == text; a blank text has no steps."""
    steps, blank = [], ""
    for piece in re.findall(r".*?\n\n|.+\Z", text, re.DOTALL):
        if piece.strip():
            steps.append(blank + piece)
            blank = ""
        else:
            blank += piece
    return [*steps[:-1], steps[-1] + blank] if steps else []


async def score_whole(prm: StepScorer, problem: Problem, steps: Sequence[str]) -> list[float]:
    """The scores of a whole solution; none where it is blank or longer than the scorer's context."""
    try:
        return await prm.score(problem.text, steps) if steps else []
    except ContextExceeded:
        return []


def count_tokens(drawn: Completion) -> int:
    """Tokens sampled: token_ids leaves out the end-of-turn token."""
    return len(drawn.token_ids) + (drawn.finish == "end")


def cut_at(policy: Policy, prompt: Sequence[int], max_tokens: int) -> tuple[int, Limit]:
    """How many tokens, the prompt's included, a solution may have at most, and which limit that is."""
    end = len(prompt) + max_tokens
    return (policy.context, "context") if policy.context < end else (end, "tokens")


def divide(total: int, parts: int) -> list[int]:
    """Total as a sum of parts that differ by at most one, the larger ones first."""
    share, rest = divmod(total, parts)
    return [share + (part < rest) for part in range(parts)]


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All results in order; the first error ends the other calls and is raised as it is."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
