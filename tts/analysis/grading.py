"""From stored samples to graded answers: which answer each solution gives, and whether it is the gold one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import pandas as pd

from tts.answers import canonical_keys, extract_answer
from tts.problems import Problem
from tts.reductions import reduce_scores
from tts.tree import Search

OUTCOMES = ("right", "wrong", "unboxed", "truncated", "failed")
WHY_NONE = {"end": "unboxed", "stop": "unboxed", "length": "truncated", "failed": "failed"}  # by the reason for its end


def grade(samples: pd.DataFrame, problems: Sequence[Problem]) -> pd.DataFrame:
    """samples (columns problem, text, finish) with five more columns.

    answer   what stands in the last box, None where there is none
    key      its canonical key, None where there is no answer
    status   how the answer was read (tts.answers); "none" where there is no answer
    correct  key equals the gold answer's key
    outcome  right, wrong, or why there is no answer: unboxed (ended its turn without one, or with an empty box),
             truncated (out of tokens), failed (engine)
    """
    texts, ids, finishes = (samples[name].tolist() for name in ("text", "problem", "finish"))
    answer_of = {text: extract_answer(text) if isinstance(text, str) else None for text in set(texts)}
    answers = [answer_of[text] for text in texts]
    read = canonical_keys(answers)
    gold = gold_keys(problems)
    keys = [found.key for found in read]
    correct = [key is not None and key == gold[problem] for key, problem in zip(keys, ids, strict=True)]
    return samples.assign(
        answer=pd.Series(answers, index=samples.index, dtype=object),
        key=pd.Series(keys, index=samples.index, dtype=object),
        status=[found.status for found in read],
        correct=np.array(correct, dtype=bool),
        outcome=[
            "right" if right else "wrong" if key is not None else WHY_NONE[finish]
            for right, key, finish in zip(correct, keys, finishes, strict=True)
        ],
    )


def gold_keys(problems: Sequence[Problem]) -> dict[str, object]:
    """The canonical key of each problem's gold answer, by problem id."""
    read = canonical_keys([problem.answer for problem in problems])
    return {problem.id: found.key for problem, found in zip(problems, read, strict=True)}


def outcome_shares(graded: pd.DataFrame) -> pd.Series:
    """Share of each outcome among all samples, in [0, 1]; they add up to 1. NaN where no outcome is known."""
    if graded.outcome.isna().all():
        return pd.Series(np.nan, index=pd.Index(OUTCOMES))
    return graded.outcome.value_counts(normalize=True).reindex(OUTCOMES, fill_value=0.0)


def answer_codes(keys: Sequence[Sequence[Hashable | None]], gold: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Integer codes of canonical keys: (P, S) of the solutions' answers, (P,) of the gold answers.

    Inside a problem equal keys have equal codes; -1 is no answer; a gold answer that nobody gave has the code -2.
    """
    codes = np.full((len(keys), max([1, *map(len, keys)])), -1, dtype=np.int64)
    gold_codes = np.full(len(keys), -2, dtype=np.int64)
    for p, (row, right) in enumerate(zip(keys, gold, strict=True)):
        numbers: dict[Hashable, int] = {}
        for s, key in enumerate(row):
            if key is not None:
                codes[p, s] = numbers.setdefault(key, len(numbers))
        gold_codes[p] = numbers.get(right, -2)
    return codes, gold_codes


def by_problem(graded: pd.DataFrame, values: Iterable) -> dict[str, list]:
    """The values, one a row of graded, of each problem by its id. A groupby in pandas takes ten times as long."""
    rows: dict[str, list] = {}
    for problem, value in zip(graded.problem.tolist(), values, strict=True):
        rows.setdefault(problem, []).append(value)
    return rows


def vote_codes(graded: pd.DataFrame, problems: Sequence[Problem]) -> tuple[np.ndarray, np.ndarray]:
    """Answer codes: (P, S) of the samples and (P,) of the gold answers, in the order of problems."""
    gold = gold_keys(problems)
    rows = by_problem(graded, graded.key)
    return answer_codes([rows.get(problem.id, []) for problem in problems], [gold[problem.id] for problem in problems])


def score_array(graded: pd.DataFrame, problems: Sequence[Problem], how: str) -> np.ndarray:
    """Reduced scores (P, S) in the places of vote_codes; 0 where there is none. how: see tts.reductions."""
    rows = by_problem(graded, graded.scores)
    array = np.zeros((len(problems), max([1, *map(len, rows.values())])))
    for row, problem in zip(array, problems, strict=True):
        scores = [reduce_scores(one, how) for one in rows.get(problem.id, [])]
        row[: len(scores)] = scores
    return array


def grade_searches(
    searches: Sequence[Search | None], problems: Sequence[Problem], *, read: Callable[[Search], Search] | None = None
) -> pd.DataFrame:
    """The graded solutions of one search a problem; read (such as tts.analysis.diversity.best_only) changes each."""
    if read:
        searches = [search and read(search) for search in searches]
    return grade(solutions_frame(searches, problems), problems)


def solutions_frame(searches: Sequence[Search | None], problems: Sequence[Problem]) -> pd.DataFrame:
    """The solutions of one search a problem as samples with scores, one row each: what grade() takes.

    A search that failed (None) or returned nothing has no row; vote_codes keeps its problem in the denominator.
    """
    columns = ("problem", "index", "text", "tokens", "finish", "scores")
    rows = [
        (problem.id, index, found.text, found.tokens, found.finish, found.scores)
        for problem, search in zip(problems, searches, strict=True)
        for index, found in enumerate(search.solutions if search else ())
    ]
    return pd.DataFrame(rows, columns=columns)
