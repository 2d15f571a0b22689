"""What a stored search (tts.tree) tells without a model: its solutions under another rule, how many differ, who won.

best_only and as_dvts return the search as another rule would have ended it; distinct and diversity count different
steps, solutions and answers; voted names the solutions that won the vote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pandas as pd

from tts.analysis.curves import pass_at_k
from tts.analysis.grading import answer_codes, by_problem, grade, solutions_frame
from tts.errors import InputError
from tts.problems import Problem
from tts.reductions import reduce_scores
from tts.tree import Search, split_steps
from tts.voting import weighted


def best_only(search: Search) -> Search:
    """A stored search of dvts() as dvts(siblings=False) would have returned it: only the best solution of each tree.

    Both make the same draws, so no second run is needed. Ties go to the first in the order of the draw. In a search
    without its tree (tts.results.replay) the last score of a solution ranks it, as it does without lookahead.
    """
    value = {node.path: node.value for node in search.nodes} or {
        solution.path: reduce_scores(solution.scores, "last") for solution in search.solutions
    }
    best = {}
    for solution in search.solutions:
        rival = best.setdefault(solution.path[0], solution)
        if value[solution.path] > value[rival.path]:
            best[solution.path[0]] = solution
    forgotten = {solution.path for solution in search.solutions} - {solution.path for solution in best.values()}
    return replace(
        search,
        solutions=list(best.values()),
        nodes=[
            msgspec.structs.replace(node, fate="dropped") if node.path in forgotten else node for node in search.nodes
        ],
    )


def as_dvts(search: Search) -> Search:
    """A stored beam search with one parent a step (N < 2 M), with the solutions that the rule of DVTS would return.

    The rule: the search ends at the first step whose best child has finished and returns the finished children of that
    step; if there is no such step, it returns those of the last step. Given the same draws, dvts() does the same up to
    the first child that finishes. After that beam search draws N - f children a step, where DVTS would draw N. The
    nodes stay as they are. InputError for a search with several parents a step.
    """
    levels = defaultdict(list)
    for node in search.nodes:
        levels[len(node.path)].append(node)
    for last in sorted(levels):
        if len({node.path[:-1] for node in levels[last]}) > 1:
            raise InputError(f"search: N = {search.n} has several parents a step; give a beam search with N below 2 M")
        scored = [node for node in levels[last] if node.score is not None]
        if not scored or max(scored, key=lambda node: node.value).finish == "end":  # the first of equals, as in keep()
            break
    return replace(search, solutions=[solution for solution in search.solutions if len(solution.path) == last])


def distinct(codes: np.ndarray, ns: Sequence[int]) -> np.ndarray:
    """Expected number of different values among n of a problem's S: codes (P, S) -> (P, len(ns)); -1 is no value.

    This is the exact mean over all subsets of n: pass_at_k is the chance that a value is in the subset.
    """
    samples = codes.shape[1]
    chance = pass_at_k(np.arange(samples) < np.arange(samples + 1)[:, None], ns)  # of a value that so many have
    return np.stack([chance[np.unique(row[row >= 0], return_counts=True)[1]].sum(axis=0) for row in codes])


def diversity(graded: pd.DataFrame, problems: Sequence[Problem], ns: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """How many different first steps, solutions and answers each problem has: kind -> (P, len(ns)).

    graded: solutions of searches or independent samples, as grade() returns them. ns: as in distinct(); without ns the
    counts are over all solutions, (P, 1). Texts that differ only in white space at their ends are equal, and so are
    answers with the same canonical key.
    """
    texts = graded.text.where(graded.text.notna(), "").tolist()
    first = {text: (split_steps(text) or [""])[0].strip() or None for text in set(texts)}
    kinds = {
        "first steps": [first[text] for text in texts],
        "solutions": [text.strip() or None for text in texts],
        "answers": graded.key,
    }
    counts = {}
    for kind, values in kinds.items():
        rows = by_problem(graded, values)
        codes, _ = answer_codes([rows.get(problem.id, []) for problem in problems], [None] * len(problems))
        counts[kind] = distinct(codes, ns or [codes.shape[1]])
    return counts


def voted(search: Search, problem: Problem, how: str) -> list[tuple[int, ...]]:
    """The paths of the solutions whose answer won the weighted vote; how: the reduction (tts.reductions)."""
    graded = grade(solutions_frame([search], [problem]), [problem])
    winner = weighted(list(graded.key), [reduce_scores(scores, how) for scores in graded.scores])
    return [
        solution.path
        for solution, key in zip(search.solutions, graded.key, strict=True)
        if key is not None and key == winner
    ]
