"""From graded solutions to the points of a figure: accuracy of votes over N, averaged over seeds, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from tts.errors import InputError
from tts.grading import score_array, vote_codes
from tts.problems import Problem
from tts.scaling import Rule, mean_interval, pass_at_k, vote_curve

METHODS: dict[str, Rule] = {  # how the methods that take independent samples vote
    "majority": "majority",
    "best_of_n_vanilla": "vanilla",
    "best_of_n_weighted": "weighted",
}


def seeds_to(n_max: int, *, seed: int, n_seeds: int, seeds_n_max: int) -> dict[int, int]:
    """The seeds of a run, each with the largest N that it goes to: the first to n_max, the others to seeds_n_max.

    They are seed, seed + 1, ...: n_seeds of them. Large budgets cost most, so they may have one seed alone.
    """
    for name, value in (("n_seeds", n_seeds), ("seeds_n_max", seeds_n_max)):
        if value < 1:
            raise InputError(f"{name} is {value}: it must be 1 or more")
    return {seed: n_max} | {seed + i: min(n_max, seeds_n_max) for i in range(1, n_seeds)}


def over_seeds(curves: Iterable[np.ndarray]) -> np.ndarray:
    """The mean of (P, points) curves, one a seed; a seed whose curve ends earlier counts as far as it goes.

    Averaged inside each problem, so that seeds stay nested in problems: these are what an interval resamples.
    """
    curves = list(curves)
    mean = np.empty((len(curves[0]), max(curve.shape[1] for curve in curves)))
    for point in range(mean.shape[1]):
        mean[:, point] = np.mean([curve[:, point] for curve in curves if point < curve.shape[1]], axis=0)
    return mean


def vote(
    graded: pd.DataFrame,
    problems: Sequence[Problem],
    rule: Rule,
    ns: Sequence[int] | None = None,
    *,
    reduction: str = "last",
) -> np.ndarray:
    """Accuracy of each problem's vote: (P, len(ns)) among n of its solutions (tts.scaling.vote_curve).

    Without ns (P, 1): among all solutions that a problem has, as a search returned them. A problem without any counts
    as wrong. reduction (tts.reductions) makes one score of a solution's step scores; majority uses none.
    """
    codes, gold = vote_codes(graded, problems)
    scores = None if rule == "majority" else score_array(graded, problems, reduction)
    return vote_curve(codes, gold, ns or [codes.shape[1]], rule=rule, scores=scores)


def coverage(graded: pd.DataFrame, problems: Sequence[Problem], ns: Sequence[int] | None = None) -> np.ndarray:
    """The chance that any of n solutions is right, pass@n: (P, len(ns)); without ns (P, 1), of all that there are."""
    codes, gold = vote_codes(graded, problems)
    right = codes == gold[:, None]
    return pass_at_k(right, ns) if ns else right.any(axis=1, keepdims=True).astype(float)


def intervals(parts: Mapping[str, tuple[np.ndarray, Sequence[int]]]) -> pd.DataFrame:
    """The points of a figure, one row each: method, n, accuracy and its 95 % interval over problems (low, high).

    parts: method -> (P, points) values in [0, 1], and the N of each point.
    """
    tables = [
        pd.DataFrame(mean_interval(values).T, columns=["accuracy", "low", "high"]).assign(method=method, n=list(ns))
        for method, (values, ns) in parts.items()
    ]
    types = {"method": str, "n": int, "accuracy": float, "low": float, "high": float}
    return pd.concat(tables, ignore_index=True)[list(types)] if tables else pd.DataFrame(columns=types).astype(types)
