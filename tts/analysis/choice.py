"""The compute-optimal choice: the best strategy for each difficulty and budget (arXiv 2408.03314, section 3).

theta*(q, N), the strategy that maximises the expected accuracy on question q under budget N, is approximated for each
quintile of difficulty. Choosing and measuring on the same problems, as the writeup seems to do, flatters the choice;
measuring on the other half does not. Accuracy is an array (methods, P, budgets) of values in [0, 1]; NaN marks a budget
at which a method was not run, for all problems alike: it is never chosen there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tts.compute_optimal import METHODS, QUINTILES, Plan
from tts.errors import InputError


def choose(accuracy: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """theta*: the best method's index for each quintile and budget, (5, budgets); ties go to the first method."""
    accuracy = np.asarray(accuracy, float)
    if accuracy.shape[1] != len(quintile):
        raise InputError(f"accuracy is of {accuracy.shape[1]} problems and quintile of {len(quintile)}: the same ones")
    for q in QUINTILES:
        if not (quintile == q).any():
            raise InputError(f"quintile {q} has no problems: give more problems")
    return np.stack([_best(accuracy[:, quintile == q]) for q in QUINTILES])


def _best(accuracy: np.ndarray) -> np.ndarray:
    """The index of the method with the highest mean at each budget, (budgets,); NaN is below everything."""
    mean = accuracy.mean(axis=1)
    return np.where(np.isnan(mean), -np.inf, mean).argmax(axis=0)


def follow(choice: np.ndarray, accuracy: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """Accuracy (P, budgets) of doing with each problem what the choice says for its quintile."""
    methods = choice[quintile - 1]  # (P, budgets)
    return np.take_along_axis(accuracy, methods[None], axis=0)[0]


def in_sample(accuracy: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """Chosen and measured on the same problems, (P, budgets): too good by what the choice fits of the noise."""
    return follow(choose(accuracy, quintile), accuracy, quintile)


def cross_fitted(accuracy: np.ndarray, quintile: np.ndarray, *, splits: int = 100, seed: int = 0) -> np.ndarray:
    """Chosen on one half and measured on the other, swapped, averaged over many random splits: (P, budgets).

    The paper's two folds. The halves are drawn within quintiles, so that each has problems of all of them.
    """
    total = np.zeros(accuracy.shape[1:])
    for known, held_out in halves(quintile, splits=splits, seed=seed):
        choice = choose(accuracy[:, known], quintile[known])
        total[held_out] += follow(choice, accuracy[:, held_out], quintile[held_out])
    return total / splits


def best_single(accuracy: np.ndarray, quintile: np.ndarray, *, splits: int = 100, seed: int = 0) -> np.ndarray:
    """The best single method at each budget by the same rule, (P, budgets): chosen on one half, measured on the other.

    The same splits as cross_fitted's, so that the two can be compared: a choice must not win because its rival was not
    allowed to choose, nor lose because the rival was chosen on the problems that it is measured on.
    """
    total = np.zeros(accuracy.shape[1:])
    for known, held_out in halves(quintile, splits=splits, seed=seed):
        method = _best(accuracy[:, known])  # (budgets,)
        total[held_out] += np.take_along_axis(accuracy[:, held_out], method[None, None], axis=0)[0]
    return total / splits


def resampled(
    accuracy: np.ndarray, quintile: np.ndarray, counts: np.ndarray, *, splits: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What cross_fitted and best_single come to when problems are drawn again and all choices are made anew.

    counts (resamples, P): how often each problem is drawn. The result is two sums over the problems drawn, each
    (resamples, budgets). A problem keeps its quintile, and all its copies are in the same fold: otherwise the choice
    would be measured on problems that it was made on. Where a fold has no problem of a quintile, the first method that
    was run is taken.
    """
    accuracy, drawn = np.asarray(accuracy, float), np.asarray(counts, float)
    missing = np.isnan(accuracy).all(axis=1)  # (methods, budgets)
    values = np.nan_to_num(accuracy).swapaxes(0, 1)  # (P, methods, budgets)

    def sums(fold: np.ndarray) -> np.ndarray:
        """Over what each resample has of a fold: (quintiles, resamples, methods, budgets)."""
        inside = [fold & (quintile == q) for q in QUINTILES]
        return np.stack([np.tensordot(drawn[:, some], values[some], axes=1) for some in inside])

    def swapped(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Chosen on one and measured on the other, and swapped: (..., methods, budgets) -> (..., budgets)."""
        total = np.zeros(np.delete(one.shape, -2))
        for known, held_out in ((one, other), (other, one)):
            best = np.where(missing, -np.inf, known).argmax(axis=-2)
            total += np.take_along_axis(held_out, best[..., None, :], axis=-2)[..., 0, :]
        return total

    optimal, single = np.zeros((2, len(drawn), accuracy.shape[2]))
    for fold in folds(quintile, splits=splits, seed=seed):
        one, other = sums(fold), sums(~fold)
        optimal += swapped(one, other).sum(axis=0)
        single += swapped(one.sum(axis=0), other.sum(axis=0))
    return optimal / splits, single / splits


def per_problem(accuracy: np.ndarray) -> np.ndarray:
    """The best method for each single problem in hindsight, (P, budgets): an upper bound that no rule can follow."""
    return np.fmax.reduce(accuracy)


def fit_plan(
    accuracy: np.ndarray, quintile: np.ndarray, *, edges: Sequence[float], budgets: Sequence[int], probe: int
) -> Plan:
    """The plan that choose() makes of these problems, with the edges of a difficulty that was estimated by `probe`."""
    chosen = choose(accuracy, quintile)
    methods = tuple(tuple(METHODS[i] for i in row) for row in chosen)
    return Plan(probe, tuple(map(float, edges)), tuple(budgets), methods)


def folds(quintile: np.ndarray, *, splits: int, seed: int) -> Iterator[np.ndarray]:
    """Random halves of the problems, each as (P,) booleans; drawn within quintiles, so that each has all of them."""
    rng = np.random.default_rng(seed)
    sizes = [int((quintile == q).sum()) for q in QUINTILES]
    if min(sizes) < 2:
        raise InputError(f"n_problems: a quintile has {min(sizes)} problem(s), two folds need 2 of each: at least 10")
    for _ in range(splits):
        fold = np.zeros(len(quintile), bool)
        for q in QUINTILES:
            members = rng.permutation(np.flatnonzero(quintile == q))
            fold[members[: len(members) // 2]] = True
        yield fold


def halves(quintile: np.ndarray, *, splits: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(known, held out), (P,) booleans each: the folds, and each of them swapped."""
    for fold in folds(quintile, splits=splits, seed=seed):
        yield fold, ~fold
        yield ~fold, fold
