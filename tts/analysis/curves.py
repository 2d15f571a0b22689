"""From graded solutions to the points of a figure: accuracy of a vote at n, pass@k, averages over seeds, intervals.

P problems, S solutions of each. Answers are small integers here (grading.answer_codes), -1 where a solution has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import gammaln

from tts.analysis.grading import score_array, vote_codes
from tts.analysis.intervals import mean_interval
from tts.errors import InputError
from tts.problems import Problem

Rule = Literal["majority", "weighted", "vanilla"]

VOTES: dict[str, Rule] = {  # how the methods that take independent samples vote
    "majority": "majority",
    "best_of_n_vanilla": "vanilla",
    "best_of_n_weighted": "weighted",
}


def powers_of_two(n_max: int) -> list[int]:
    """1, 2, 4, ... up to n_max, with n_max itself at the end."""
    if n_max < 1:
        raise InputError(f"n_max is {n_max}: at least one sample a problem is needed")
    return sorted({2**i for i in range(n_max.bit_length())} | {n_max})


def powers_of_four(n_max: int) -> list[int]:
    """4, 16, 64, ... up to n_max: the writeup's budgets for searches."""
    if n_max < 4:
        raise InputError(f"n_max is {n_max}: the smallest budget of a search is 4")
    return [4**i for i in range(1, n_max.bit_length()) if 4**i <= n_max]


def vote_curve(
    codes: np.ndarray,
    gold: np.ndarray,
    ns: Sequence[int],
    *,
    rule: Rule = "majority",
    scores: np.ndarray | None = None,
    draws: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Accuracy of a vote among n of the S solutions, for each problem and n: (P, len(ns)) of values in [0, 1].

    Each value is the mean over `draws` random orders of the solutions, the first n of which vote as tts.voting defines;
    so n = S averages over the ways in which ties fall. scores (P, S), at least 0, for the rules that use them.
    """
    problems, samples = codes.shape
    if rule != "majority" and (scores is None or scores.shape != codes.shape):
        raise InputError(f"scores: the rule {rule!r} needs one score a solution, shape {codes.shape}")
    if min(ns) < 1 or max(ns) > samples:
        raise InputError(f"ns: {list(ns)} asks for votes of 1 to {samples} solutions; there are {samples} a problem")
    weights = np.ones(codes.shape) if rule == "majority" else scores
    if rule == "vanilla":
        weights = np.where(codes < 0, -np.inf, weights)  # no answer is never chosen
    right = np.zeros((len(ns), problems))
    some = np.flatnonzero(gold >= 0)  # the others are wrong whoever wins: nobody gave their gold answer
    if not len(some):
        return right.T
    # The answers of all problems as groups with one number each; the first of each problem's is "no answer".
    size = max(codes.max(), 0) + 2
    none = size * np.arange(len(some))
    groups, weights, sought = codes[some] + none[:, None] + 1, weights[some], gold[some] + none + 1
    first = samples * np.arange(len(some))
    for order in orders(problems, samples, draws, seed):
        places = order[some] + first[:, None]
        drawn, weight = groups.take(places), weights.take(places)
        for i, n in enumerate(ns):
            value = weight[:, :n]
            if rule != "vanilla":
                totals = np.bincount(drawn[:, :n].ravel(), value.ravel(), minlength=size * len(some))
                totals[none] = -np.inf
                value = totals.take(drawn[:, :n])
            # argmax takes the first of equals: a tie goes to the group seen first, in vanilla to the first solution.
            right[i, some] += drawn.take(first + value.argmax(axis=1)) == sought
    return right.T / draws


@lru_cache(maxsize=4)  # rules that are compared vote in the same orders
def orders(problems: int, samples: int, draws: int, seed: int) -> np.ndarray:
    """The random orders that vote_curve takes each problem's solutions in, (draws, P, S): their places.

    They are of the smallest type that holds them.
    """
    rng = np.random.default_rng(seed)
    drawn = (rng.random((problems, samples)).argsort(axis=1) for _ in range(draws))
    return np.stack([order.astype(np.min_scalar_type(samples)) for order in drawn])


def pass_at_k(correct: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Unbiased pass@k of each problem: 1 - C(S - c, k) / C(S, k), c of S solutions right; (P, S) -> (P, len(ks)).

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1.
    """
    samples = correct.shape[1]
    if min(ks) < 1 or max(ks) > samples:
        raise InputError(f"ks: {list(ks)} asks for 1 to {samples} solutions; there are {samples} a problem")
    k = np.asarray(ks)[None, :]
    wrong = samples - correct.sum(axis=1)[:, None]
    with np.errstate(invalid="ignore"):  # C(wrong, k) with k > wrong is 0: the branch below takes care of it
        ratio = np.exp(_log_choose(np.maximum(wrong, k), k) - _log_choose(samples, k))
    return np.where(wrong < k, 1.0, 1.0 - ratio)


def _log_choose(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def vote(
    graded: pd.DataFrame,
    problems: Sequence[Problem],
    rule: Rule,
    ns: Sequence[int] | None = None,
    *,
    reduction: str = "last",
) -> np.ndarray:
    """Accuracy of each problem's vote: (P, len(ns)) among n of its solutions (vote_curve).

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


def mean_vote(
    tables: Sequence[pd.DataFrame],
    problems: Sequence[Problem],
    rule: Rule,
    ns: Sequence[int] | None = None,
    *,
    reduction: str = "last",
) -> np.ndarray:
    """vote() of each seed's table, averaged within each problem: (P, len(ns)), or (P, 1) without ns."""
    return _over_seeds(tables, ns, lambda graded, at: vote(graded, problems, rule, at, reduction=reduction))


def mean_coverage(
    tables: Sequence[pd.DataFrame], problems: Sequence[Problem], ns: Sequence[int] | None = None
) -> np.ndarray:
    """coverage() of each seed's table, averaged within each problem: (P, len(ns)), or (P, 1) without ns."""
    return _over_seeds(tables, ns, lambda graded, at: coverage(graded, problems, at))


def _over_seeds(
    tables: Sequence[pd.DataFrame], ns: Sequence[int] | None, curve: Callable[..., np.ndarray]
) -> np.ndarray:
    """The mean over seeds at each n; a seed with fewer samples counts as far as it goes.

    Of independent samples a seed counts by how many it has: a vote of 4 among 64 is a mean over many draws of 4, a vote
    of 4 among 4 is one of them. Averaged within each problem, so that seeds stay nested in problems: these are what an
    interval resamples.
    """
    curves, weights = [], []
    for graded in tables:
        most = graded.groupby("problem").size().max()
        curves.append(curve(graded, ns and [n for n in ns if n <= most]))
        weights.append(most if ns else 1)
    mean = np.empty((len(curves[0]), max(one.shape[1] for one in curves)))
    for point in range(mean.shape[1]):
        far = [(one[:, point], weight) for one, weight in zip(curves, weights, strict=True) if point < one.shape[1]]
        values, of = zip(*far, strict=True)
        mean[:, point] = np.average(values, axis=0, weights=of)
    return mean


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


def greedy_points(greedy: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The greedy baselines (graded solutions by policy) as points of a figure: method, accuracy, low, high."""
    right = {f"greedy {name}": (graded.correct.to_numpy(float)[:, None], [1]) for name, graded in greedy.items()}
    return intervals(right).drop(columns="n")
