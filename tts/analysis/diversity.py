"""One stored search after the fact: read by another rule, how many of its solutions differ, which of them won the vote.

A stored Search (tts.tree) has all that is needed: nothing here asks a model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tts.analysis.curves import pass_at_k
from tts.analysis.grading import answer_codes, grade, solutions_frame
from tts.errors import InputError
from tts.problems import Problem
from tts.reductions import reduce_scores
from tts.tree import Search, split_steps
from tts.voting import weighted


def best_only(search: Search) -> Search:
    """The stored search of dvts() as dvts(siblings=False) would have returned it: of each tree the best solution.

    The draws are the same, so no second run is needed; ties go to the first in the order of the draw.
    """
    nodes = {node.path: node for node in search.nodes}
    best = {}
    for solution in search.solutions:
        rival = best.setdefault(solution.path[0], solution)
        if nodes[solution.path].value > nodes[rival.path].value:
            best[solution.path[0]] = solution
    forgotten = {solution.path for solution in search.solutions} - {solution.path for solution in best.values()}
    return replace(
        search,
        solutions=list(best.values()),
        nodes=[replace(node, fate="dropped") if node.path in forgotten else node for node in search.nodes],
    )


def as_dvts(search: Search) -> Search:
    """The stored beam search of a single path of parents (N < 2 M) with the solutions that DVTS' rule would return.

    It ends at the first step whose best child has finished, with the finished children of that step; of a tree without
    such a step, with those of the last one. Up to the first child that finishes this is what dvts() does with the same
    draws; where it goes on after that, beam search has drawn N - f children, DVTS would have drawn all of them again.
    The tree stays as it is.
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

    The mean over all subsets of n, exactly: each value is among them with the chance that pass_at_k gives it.
    """
    return np.stack([pass_at_k(row == np.unique(row[row >= 0])[:, None], ns).sum(axis=0) for row in codes])


def diversity(graded: pd.DataFrame, problems: Sequence[Problem], ns: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """How many different first steps, solutions and answers each problem has: kind -> (P, len(ns)), or (P, 1) of all.

    graded: solutions of searches or independent samples, as grade() returns them; ns as in distinct(). White space at
    the ends of a text makes no difference; answers are told apart by their canonical keys.
    """
    texts = graded.text.where(graded.text.notna(), "")
    kinds = {
        "first steps": [(split_steps(text) or [""])[0].strip() or None for text in texts],
        "solutions": [text.strip() or None for text in texts],
        "answers": graded.key,
    }
    counts = {}
    for kind, values in kinds.items():
        rows = pd.Series(list(values), index=graded.problem, dtype=object).groupby(level=0).agg(list).to_dict()
        codes, _ = answer_codes([rows.get(problem.id, []) for problem in problems], [None] * len(problems))
        counts[kind] = distinct(codes, ns or [codes.shape[1]])
    return counts


def voted(search: Search, problem: Problem, how: str) -> list[tuple[int, ...]]:
    """The paths of the solutions that gave the answer of the weighted vote, for layout(); how: see tts.reductions."""
    graded = grade(solutions_frame([search], [problem]), [problem])
    winner = weighted(list(graded.key), [reduce_scores(scores, how) for scores in graded.scores])
    return [
        solution.path
        for solution, key in zip(search.solutions, graded.key, strict=True)
        if key is not None and key == winner
    ]
