"""Four ways to spend N solutions on one problem: majority, Best-of-N, beam search, diverse verifier tree search (DVTS).

Each is an async function over one problem that awaits `policy.sample` and `prm.score` and is otherwise the pseudocode
of the writeup and of arXiv 2408.03314 (N is `n`, M is `beam_width`). Run many problems at once as tasks: the engine
batches whatever is waiting, so nothing is batched here and no problem waits for another.

Rules that hold for all of them:
- A step ends at a blank line; white space alone is no step (tts.tree).
- Finished means that the model ended its turn. What ran out of tokens (max_tokens, for a solution over all its steps)
  or of context is cut: a search never scores, continues or returns it. An independent sample stays, as finish says.
- Ties go to the first in the order of the draw, in which the children of a better parent come first.
- Equal steps after equal steps are scored once, and earlier steps never again: their scores are passed as known.
- Every token counts, those of dropped branches too.
- Bad settings raise InputError before anything is sampled; a failing engine's EngineError ends the problem's other
  requests and is raised as it is.
"""

from __future__ import annotations

from dataclasses import replace

from tts.errors import check_counts
from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem
from tts.seeds import sample_seed
from tts.tree import Branch, Search, Solution, Tree, count_tokens, cut_at, divide, score_whole, split_steps, together


async def majority(
    problem: Problem, policy: Policy, *, n: int, first: int = 0, sampling: Sampling = Sampling()
) -> Search:
    """N independent solutions, for a vote (tts.voting). Sample i is the same for every n, and in best_of_n.

    first: only samples first ... n - 1, where the earlier ones have been drawn already.
    """
    check_counts(n=n - first)
    prompt = policy.prompt(problem.text)

    async def draw(i: int) -> Solution:
        drawn = await policy.sample(prompt, replace(sampling, seed=sample_seed(sampling.seed, problem.id, i)))
        steps = split_steps(drawn.text)
        return Solution(drawn.text, steps, [], count_tokens(drawn), drawn.logprob, drawn.finish, path=(i,))

    # 1. Draw N independent solutions.
    solutions = await together(draw(i) for i in range(first, n))

    _, limit = cut_at(policy, prompt, sampling.max_tokens)
    ended = ["finished" if solution.finish == "end" else limit for solution in solutions]
    generated = sum(solution.tokens for solution in solutions)
    return Search("majority", problem.id, n, solutions, ended, generated=generated)


async def best_of_n(
    problem: Problem, policy: Policy, prm: StepScorer, *, n: int, first: int = 0, sampling: Sampling = Sampling()
) -> Search:
    """The solutions of majority() with a score a step: what vanilla and weighted Best-of-N choose from (tts.voting).

    A solution is scored whole, in one call, even one that was cut; equal solutions once. One that is longer than the
    scorer's context stays without scores, and ended says "context".
    """
    # 1. Draw N independent solutions.
    search = await majority(problem, policy, n=n, first=first, sampling=sampling)

    # 2. Score every step of each.
    distinct = {solution.text: solution for solution in search.solutions if solution.steps}
    scores = await together(score_whole(prm, problem, solution.steps) for solution in distinct.values())
    scores_of = dict(zip(distinct, scores, strict=True))
    for i, solution in enumerate(search.solutions):
        solution.scores = list(scores_of.get(solution.text, []))
        if solution.steps and not solution.scores:
            search.ended[i] = "context"

    search.strategy = "best_of_n"
    search.scored = sum(solution.tokens for solution in distinct.values())
    return search


async def beam_search(
    problem: Problem,
    policy: Policy,
    prm: StepScorer,
    *,
    n: int,
    beam_width: int = 4,
    depth: int = 40,
    lookahead: int = 0,
    drop_duplicates: bool = False,
    sampling: Sampling = Sampling(),
) -> Search:
    """Beam search against a step scorer: one tree, in which N branches compete at every step (arXiv 2408.03314).

    A finished solution leaves the beam and counts towards N: it does not compete for places, and long solutions keep
    theirs. Exactly N come back unless depth (in steps), tokens or context end the search; `ended` then says which.

    M need not divide N: children are spread evenly over the parents, the best parents get one more, and below 2 M there
    is one parent. Where fewer are left than are to be kept, they share the N - f children.
    lookahead: rank a child by the score this many greedy steps later, 0 by its own.
    drop_duplicates: drop an unfinished child that repeats a sibling; a finished one is a vote and stays.
    """
    tree = Tree(
        strategy="beam_search",
        problem=problem,
        policy=policy,
        prm=prm,
        n=n,
        beam_width=beam_width,
        depth=depth,
        lookahead=lookahead,
        drop_duplicates=drop_duplicates,
        sampling=sampling,
    )
    # 1. Begin with the empty solution; f = 0 have finished.
    kept, finished, ended = [tree.root(0)], [], "depth"
    for _ in range(depth):
        # 2. Expand what was kept to N - f children in all, and score each one's new step.
        children = await tree.step(kept, n - len(finished))

        # 3. The finished ones leave the beam and count towards N.
        finished += [child for child in children if child.finished]
        unfinished = [child for child in children if not child.finished]
        if len(finished) == n:
            ended = "finished"
            break
        if not unfinished:
            ended = tree.limit
            break

        # 4. Keep the best floor((N - f) / M) of the unfinished, at least one.
        kept = tree.keep(unfinished, max(1, (n - len(finished)) // beam_width))

    return tree.result(finished, [ended])


async def dvts(
    problem: Problem,
    policy: Policy,
    prm: StepScorer,
    *,
    n: int,
    beam_width: int = 4,
    depth: int = 40,
    lookahead: int = 0,
    drop_duplicates: bool = False,
    siblings: bool = True,
    sampling: Sampling = Sampling(),
) -> Search:
    """Diverse verifier tree search: N / M independent trees, each a greedy descent by score (the writeup, "DVTS").

    Every finished child of a tree's last expansion is a solution, an unfinished one never; siblings=False returns only
    the best of them. Where M does not divide N there are floor(N / M) trees, at least one, and the first ones expand to
    one child more, N in all. The other settings are those of beam_search.

    Below N = 2 M both searches are one tree and, given the same draws, the same one until a first child finishes. Then
    beam search sets that child aside and goes on with the others until it has N; DVTS ends if that child is the best
    one, and forgets it if not.
    """
    tree = Tree(
        strategy="dvts",
        problem=problem,
        policy=policy,
        prm=prm,
        n=n,
        beam_width=beam_width,
        depth=depth,
        lookahead=lookahead,
        drop_duplicates=drop_duplicates,
        sampling=sampling,
    )

    async def descend(number: int, width: int) -> tuple[list[Branch], str]:
        # 2. Begin each tree with the empty solution.
        best, ended = tree.root(number), "depth"
        for _ in range(depth):
            # 3. Expand the best to M children, and score each one's new step.
            children = await tree.step([best], width)
            if not children:
                ended = tree.limit
                break

            # 4. Keep the best child; the tree ends when that one is finished.
            [best] = tree.keep(children, 1)
            if best.finished:
                ended = "finished"
                break

        # 5. The finished children of the last expansion are solutions.
        finished = [child for child in children if child.finished]
        return (finished if siblings else tree.keep(finished, 1)), ended

    # 1. Divide N into N / M trees, which never meet.
    widths = divide(n, max(1, n // beam_width))
    trees = await together(descend(number, width) for number, width in enumerate(widths))
    return tree.result([branch for finished, _ in trees for branch in finished], [ended for _, ended in trees])
