"""A budget moved between problems: for each quintile of difficulty what to run, so that all of it costs what is asked.

The compute-optimal choice (tts.analysis.choice) takes the best method for each quintile at one budget. Here each
quintile may have another budget: the candidates are such as Best-of-N with several N, and what they cost in all is
bounded. Difficulty is estimated from a first look, which luck moves from one order of the samples to another, so a
problem may be in several quintiles: accuracy and cost are arrays (P, 5, candidates) as by_quintile() makes them.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from tts.analysis.choice import halves
from tts.compute_optimal import QUINTILES


def by_quintile(values: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """Values of each order, problem and candidate, (orders, P, candidates), by the quintile that the order gives it.

    quintile (orders, P); of a single order both without that axis. The result (P, 5, candidates) is a mean over all
    orders, with 0 for those in which the problem is in another quintile; so its sum over quintiles is the mean.
    """
    values, quintile = np.asarray(values, float), np.asarray(quintile)
    if quintile.ndim == 1:
        values, quintile = values[None], quintile[None]
    return np.stack([(values * (quintile == q)[..., None]).mean(axis=0) for q in QUINTILES], axis=1)


def allocate(accuracy: np.ndarray, cost: np.ndarray, budget: np.ndarray | float) -> np.ndarray:
    """The candidate for each quintile, (..., 5), with the highest accuracy in all whose cost in all is within budget.

    accuracy and cost (..., 5, candidates): sums over each quintile's problems; budget (...,): a sum over all. Every
    way is tried. Ties go to the cheaper, then to the first; where no way is within the budget, the cheapest is taken.
    """
    ways = np.array(list(product(range(accuracy.shape[-1]), repeat=len(QUINTILES))))  # (ways, 5)

    def total(values: np.ndarray) -> np.ndarray:
        return sum(values[..., q, ways[:, q]] for q in range(len(QUINTILES)))  # (..., ways)

    right, spent = total(accuracy), total(cost)
    right = np.where(spent <= np.asarray(budget)[..., None] * (1 + 1e-9), right, -np.inf)
    best = right >= right.max(axis=-1, keepdims=True) - 1e-9
    return ways[np.where(best, spent, np.inf).argmin(axis=-1)]


def cross_fitted(
    accuracy: np.ndarray, cost: np.ndarray, quintile: np.ndarray, budget: float, *, splits: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and cost of each problem, (P,) each: allocated on one half, spent on the other, over many splits.

    quintile (P,): the halves are drawn within these. budget: a problem, on average; what is spent on the other half is
    not exactly it. Without a bound (np.inf) each quintile has its best candidate, as in the compute-optimal choice.
    """
    found = np.zeros((2, len(accuracy)))
    for known, held_out in halves(quintile, splits=splits, seed=seed):
        sums = accuracy[known].sum(axis=0), cost[known].sum(axis=0)
        chosen = allocate(*sums, budget * known.sum())  # (5,)
        found[:, held_out] += [_follow(chosen, values[held_out]) for values in (accuracy, cost)]
    return tuple(found / splits)


def resampled(
    accuracy: np.ndarray,
    cost: np.ndarray,
    quintile: np.ndarray,
    counts: np.ndarray,
    budget: float,
    *,
    splits: int = 4,
    seed: int = 0,
) -> np.ndarray:
    """Sums of cross_fitted's accuracy, (resamples,), when problems are drawn again and all is allocated anew.

    counts (resamples, P): how often each problem is drawn; all copies of a problem are in the same half, as in
    tts.analysis.choice.resampled.
    """
    drawn, found = np.asarray(counts, float), np.zeros(len(counts))

    def sums(values: np.ndarray, half: np.ndarray) -> np.ndarray:
        return np.tensordot(drawn[:, half], values[half], axes=1)  # (resamples, 5, candidates)

    for known, held_out in halves(quintile, splits=splits, seed=seed):
        chosen = allocate(sums(accuracy, known), sums(cost, known), budget * drawn[:, known].sum(axis=1))
        found += _follow(chosen, sums(accuracy, held_out))
    return found / splits


def _follow(chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The sum over quintiles of what the chosen candidate of each has: values (n, 5, candidates) -> (n,)."""
    places = np.broadcast_to(chosen, values.shape[:-1])
    return np.take_along_axis(values, places[..., None], axis=-1)[..., 0].sum(axis=-1)
