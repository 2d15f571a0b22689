"""What can be measured of an experiment without a search, as rows of text: what an embedded world can mirror.

The rows have the names of `python -m tts.tiny.mirror`, so its columns and these can be read side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tts.analysis.curves import mean_coverage, mean_vote, powers_of_four
from tts.analysis.diversity import diversity
from tts.analysis.grading import by_problem, score_array, vote_codes
from tts.analysis.intervals import mean_interval
from tts.analysis.verifiers import within_auc
from tts.problems import Problem

STEPS = (1, 2, 3, 4, 6, 10)  # a first low score at step 1, 2, 3, 4, 5-6, 7-10, or later


def shown(values: Sequence[float], digits: int = 1) -> str:
    """Numbers with so many digits after the point."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def sample_rows(tables: Sequence[pd.DataFrame], problems: Sequence[Problem], *, n_max: int) -> dict[str, str]:
    """The rows of independent samples with scores: graded tables, one a seed (tts.experiment.samples_of).

    The last score of a solution counts; accuracies in per cent.
    """
    ns = powers_of_four(n_max)
    passed, one = (mean_coverage(tables, problems, at).mean(axis=0) for at in (ns, [1]))
    vote = {rule: mean_vote(tables, problems, rule, ns).mean(axis=0) for rule in ("majority", "weighted", "vanilla")}
    within = np.nanmean([auc_within(table, problems) for table in tables], axis=0)
    mean, low, high = mean_interval(within[~np.isnan(within)]) if not np.isnan(within).all() else [np.nan] * 3
    at = ", ".join(map(str, ns))
    steps = [len(scores) for table in tables for scores in table.scores if scores]
    with np.errstate(invalid="ignore", divide="ignore"):  # where a vote is as good as pass@N
        closed = 100 * (vote["weighted"] - vote["majority"]) / (passed - vote["majority"])
    return {
        "pass@1": shown(100 * one),
        f"pass@{at}": shown(100 * passed),
        f"majority@{at}": shown(100 * vote["majority"]),
        "steps a solution": shown([np.mean(steps) if steps else np.nan]),
        f"weighted@{at}": shown(100 * vote["weighted"]),
        f"vanilla@{at}": shown(100 * vote["vanilla"]),
        f"gap closed at {at}": shown(closed, 0),
        "vanilla - majority at the largest N": shown([100 * (vote["vanilla"] - vote["majority"])[-1]]),
        "AUC within problems": f"{mean:.2f} [{low:.2f}, {high:.2f}] ({(~np.isnan(within)).sum()} problems)",
        **low_score_rows(pd.concat(tables)),
    }


def auc_within(graded: pd.DataFrame, problems: Sequence[Problem]) -> np.ndarray:
    """AUC of the last score among each problem's answered solutions, (P,); NaN without right and wrong ones."""
    codes, gold = vote_codes(graded, problems)
    counts = by_problem(graded, graded.scores.map(len))
    scored = np.zeros(codes.shape, dtype=bool)
    for row, problem in zip(scored, problems, strict=True):
        row[: len(counts.get(problem.id, []))] = np.array(counts.get(problem.id, [])) > 0
    scores = np.where((codes >= 0) & scored, score_array(graded, problems, "last"), np.nan)
    return within_auc(scores, codes == gold[:, None])


def first_low(scores: Sequence[float]) -> int:
    """The step, from 1, whose score is the first below 0.5; 0 where none is."""
    return next((step for step, score in enumerate(scores, start=1) if score < 0.5), 0)


def low_score_rows(graded: pd.DataFrame) -> dict[str, str]:
    """Where scores first fall below 0.5, of right and of wrong solutions: per cent of them by step (STEPS)."""
    scored = graded[graded.scores.map(len) > 0]
    where = scored.scores.map(first_low).to_numpy()
    edges = [0.5, *(step + 0.5 for step in STEPS), np.inf]
    rows = {}
    for name, members in (("right", scored.correct.to_numpy(bool)), ("wrong", ~scored.correct.to_numpy(bool))):
        found = where[members]
        shares = [*np.histogram(found, edges)[0], (found == 0).sum()] / np.float64(max(len(found), 1))
        rows[f"first score below .5 of {name} solutions at step 1, 2, 3, 4, -6, -10, later, never"] = shown(
            100 * shares, 0
        )
    return rows


def search_rows(solutions: dict[int, pd.DataFrame], alone: pd.DataFrame, problems: Sequence[Problem]) -> dict[str, str]:
    """What beam search returned (N -> graded solutions of a seed) against independent samples: copies and order.

    Order: mean Spearman correlation, within problems, of a solution's place with its length in characters. It is above
    0 where short ones come first, as they do where solutions are returned in the order in which they finish.
    """
    ns = sorted(solutions)
    different = [diversity(solutions[n], problems)["solutions"].mean() for n in ns]
    independent = diversity(alone, problems, ns)["solutions"].mean(axis=0)
    at = ", ".join(map(str, ns))
    return {
        f"different solutions of beam search at {at}": shown(different),
        f"different among independent samples at {at}": shown(independent),
        f"length against place at {at}": shown([length_order(solutions[n]) for n in ns], 2),
    }


def length_order(graded: pd.DataFrame) -> float:
    """Mean over problems of the rank correlation between a solution's place and its length; NaN without any."""
    frame = pd.DataFrame({"problem": graded.problem, "place": graded["index"], "length": graded.text.str.len()})
    varied = frame.groupby("problem").filter(lambda one: one.length.nunique() > 1)
    found = [one.place.corr(one.length, method="spearman") for _, one in varied.groupby("problem")]
    return float(np.mean(found)) if found else float("nan")
