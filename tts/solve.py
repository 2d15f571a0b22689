"""One call from a problem to an answer, with the reasons for it: in a script, and in a notebook without await."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tts.answers import canonical_keys, extract_answer
from tts.errors import InputError
from tts.models.open import open_policy, open_prm
from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem
from tts.reductions import reduce_scores
from tts.strategies import beam_search, best_of_n, dvts, majority
from tts.tree import Search
from tts.voting import weighted

SEARCHES = {"beam_search": beam_search, "dvts": dvts, "best_of_n": best_of_n}
STRATEGIES = (*SEARCHES, "majority")


@dataclass(frozen=True)
class Answer:
    """What a problem's solutions voted for, and why. print() shows it."""

    answer: str | None  # as the best solution for it writes it; None where no solution has an answer
    votes: dict[str, float]  # of each answer, the largest first: the sum of its solutions' scores, or how many they are
    steps: list[str]  # of the solution with the highest score among those with that answer
    scores: list[float]  # one a step, in [0, 1]; empty without a PRM
    generated: int  # tokens sampled, those of dropped branches too
    scored: int  # tokens that the PRM read as new steps
    search: Search = field(repr=False)  # all solutions, and the tree

    def __str__(self) -> str:
        votes = ", ".join(f"{answer}: {vote:.3g}" for answer, vote in self.votes.items())
        marks = [f"{score:.2f}" for score in self.scores] or ["    "] * len(self.steps)
        steps = [f"  {mark}  {step.strip()}" for mark, step in zip(marks, self.steps, strict=True)]
        counts = f"tokens: {self.generated:,} generated, {self.scored:,} scored"
        return "\n".join([f"answer: {self.answer}", f"votes: {votes or 'none'}", *steps, counts])


def solve(
    problem: str | Problem,
    *,
    policy: str | Policy,
    prm: str | StepScorer | None = None,
    n: int = 16,
    strategy: str = "beam_search",
    reduction: str = "last",
    sampling: Sampling = Sampling(),
) -> Answer:
    r"""Spend n solutions on a problem, and let them vote.

    problem    its text; the policy is to write its answer in \boxed{}
    policy     a name as in tts.open_policy, or a policy that it gave (with a system prompt, say): that one stays loaded
    prm        the same of tts.open_prm; only "majority" needs none, and asks none
    strategy   "beam_search", "dvts", "best_of_n" (all with a vote weighted by scores), or "majority" (one vote each)
    reduction  of a solution's step scores to its weight (tts.reductions)
    sampling   temperature, top_p, max_tokens of a solution, seed: the same call gives the same answer
    Ties go to the first in the order of the draw. Raises InputError, one line, for what is wrong with these before a
    model is loaded, and EngineError where an engine fails. It waits for the result, also under a running event loop;
    an interrupt ends it.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy is {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    if prm is None and strategy in SEARCHES:
        raise InputError(f"prm is missing: {strategy} needs one; name it, or take strategy='majority'")
    if not isinstance(problem, Problem):
        problem = Problem(id=problem, text=problem, answer="")
    if not problem.text.strip():
        raise InputError("problem is empty: give its text")
    reduce_scores([1.0], reduction)
    from anyio.from_thread import start_blocking_portal  # only this call needs it

    # A thread with an event loop of its own: a notebook's is running, and can't wait for its own work.
    with start_blocking_portal() as portal:
        search = portal.call(_search, problem, policy, prm, strategy, n, sampling)
    return _vote(search, reduction)


async def _search(
    problem: Problem,
    policy: str | Policy,
    prm: str | StepScorer | None,
    strategy: str,
    n: int,
    sampling: Sampling,
) -> Search:
    async with AsyncExitStack() as opened:
        if isinstance(policy, str):
            policy = open_policy(policy, parameter="policy")
            opened.push_async_callback(policy.close)
        if strategy == "majority":
            return await majority(problem, policy, n=n, sampling=sampling)
        if isinstance(prm, str):
            prm = open_prm(prm, parameter="prm", problems=[problem])
            opened.push_async_callback(prm.close)
        return await SEARCHES[strategy](problem, policy, prm, n=n, sampling=sampling)


def _vote(search: Search, reduction: str) -> Answer:
    solutions = search.solutions
    answers = [extract_answer(solution.text) for solution in solutions]
    keys = [found.key for found in canonical_keys(answers)]
    has_scores = search.strategy != "majority"
    weights = [reduce_scores(one.scores, reduction) if has_scores else 1.0 for one in solutions]
    winner = weighted(keys, weights)
    written, votes = {}, {}  # by key: the answer as it was first written, and its vote
    for key, answer, weight in zip(keys, answers, weights, strict=True):
        if key is not None:
            written.setdefault(key, answer)
            votes[key] = votes.get(key, 0.0) + weight
    best = max(
        (i for i, key in enumerate(keys) if key is not None and key == winner), key=weights.__getitem__, default=None
    )
    return Answer(
        answer=None if best is None else answers[best],
        votes={written[key]: votes[key] for key in sorted(votes, key=votes.get, reverse=True)},
        steps=[] if best is None else solutions[best].steps,
        scores=[] if best is None else solutions[best].scores,
        generated=search.generated,
        scored=search.scored,
        search=search,
    )
