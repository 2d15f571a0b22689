"""How good a verifier's scores are: do they tell right from wrong (AUC), and do they mean what they say (calibration)?

Pure: arrays in, numbers out. P problems, S solutions of each; a score that is not a number (NaN) leaves its solution
out, so that problems may have fewer than S. AUC here is the chance that a right one scores above a wrong one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from hashlib import blake2b

import numpy as np
from scipy.special import expit, logit, ndtri

from tts.analysis.intervals import central_interval, resample_counts
from tts.errors import InputError


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Area under the ROC curve: the chance that a right one scores above a wrong one.

    Ties count one half; not a number if either side is empty. (The Mann-Whitney statistic over the number of pairs.)
    """
    if not len(right) or not len(wrong):
        return float("nan")
    return float(_wins(right, np.sort(wrong)).sum() / (len(right) * len(wrong)))


def _wins(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """How many of the wrong ones (sorted) each of the right ones is above, ties as one half."""
    return (np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")) / 2


def within_auc(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """AUC among the solutions of each problem: scores and correct (P, S) -> (P,).

    It is what choosing between solutions lives on: how easy a problem is plays no part in it. Not a number for a
    problem that lacks right or wrong solutions; numpy's nanmean is the mean over the others.
    """
    used = ~np.isnan(_same_shape(scores, correct))
    correct = np.asarray(correct, dtype=bool)
    return np.array([auc(s[u & c], s[u & ~c]) for s, u, c in zip(scores, used, correct, strict=True)])


def pooled_auc(scores: np.ndarray, correct: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """AUC over the solutions of all problems with its bootstrap interval over problems: (P, S) -> (3,) AUC, low, high.

    Whole problems are resampled, as in mean_interval: solutions of one problem are not independent.
    """
    used = ~np.isnan(_same_shape(scores, correct))
    right, wrong = used & (correct == 1), used & (correct == 0)
    # Pairs that the right one wins, by the problem of the right one and the problem of the wrong one: a resample only
    # weighs them.
    values, problem = scores[right], np.nonzero(right)[0]
    won = np.zeros((len(scores), len(scores)))
    for q in range(len(scores)):
        won[:, q] = np.bincount(problem, _wins(values, np.sort(scores[q, wrong[q]])), minlength=len(scores))
    counts = resample_counts(len(scores), resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a side is empty
        found = np.einsum("rp,pq,rq->r", counts, won, counts, optimize=True)
        found = found / ((counts @ right.sum(axis=1)) * (counts @ wrong.sum(axis=1)))
        whole = won.sum() / (right.sum() * np.float64(wrong.sum()))
    return np.array([whole, *central_interval(found)])


def calibration(
    scores: np.ndarray,
    correct: np.ndarray,
    *,
    bins: int = 10,
) -> dict[str, np.ndarray]:
    """The points of a reliability diagram: scores in [0, 1] and correct, (P, S), in bins of equally many solutions.

    For each bin that has solutions: count, predicted (their mean score), right (their share of right ones), and low and
    high, its bootstrap interval over problems. Equal scores are never parted, so bins are only about equal; bins of
    equal width would have a few solutions where scores are rare, and their intervals would say little.
    """
    used = ~np.isnan(_same_shape(scores, correct))
    values = scores[used]
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins)) if len(values) else []
    where = np.nonzero(used)[0], np.searchsorted(edges, values, "right")
    shape = len(scores), bins
    count, total, hits = (np.zeros(shape) for _ in range(3))
    np.add.at(count, where, 1)
    np.add.at(total, where, scores[used])
    np.add.at(hits, where, np.asarray(correct, dtype=float)[used])
    filled = count.any(axis=0)
    count, total, hits = count[:, filled], total[:, filled], hits[:, filled]
    weights = resample_counts(len(scores))
    with np.errstate(invalid="ignore"):  # a resample may have none of a bin's problems
        low, high = central_interval((weights @ hits) / (weights @ count))
    n = count.sum(axis=0)
    return {
        "count": n.astype(int),
        "predicted": total.sum(axis=0) / n,
        "right": hits.sum(axis=0) / n,
        "low": low,
        "high": high,
    }


def calibration_error(scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Expected calibration error: mean distance of mean score and share of right ones over ten equal bins, by size.

    scores in [0, 1] and correct have one value a solution (or step). Source: Naeini et al. 2015; Guo et al. 2017,
    arXiv 1706.04599, equation 3.
    """
    scores, correct = np.asarray(scores, dtype=float), np.asarray(correct, dtype=float)
    sums = np.bincount(np.minimum((scores * 10).astype(int), 9), scores - correct)
    return float(np.abs(sums).sum() / len(scores)) if len(scores) else float("nan")


def until_error(scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> tuple[np.ndarray, np.ndarray]:
    """The steps of all solutions up to and with the first wrong one: (their scores, whether they are right), flat.

    After a first error no step is right whatever it says, so that later ones would only repeat the verdict.
    """
    kept = [(s, r) for ss, rs in zip(scores, right, strict=True) for s, r in _up_to_first_wrong(ss, rs)]
    return np.array([s for s, _ in kept], dtype=float), np.array([r for _, r in kept], dtype=bool)


def finds_error(
    scores: Sequence[Sequence[float]], right: Sequence[Sequence[bool]], *, threshold: float = 0.5
) -> np.ndarray:
    """For each solution whether its first score below threshold is at its first wrong step, or there are neither."""
    found = [next((i for i, score in enumerate(row) if score < threshold), None) for row in scores]
    truth = [next((i for i, good in enumerate(row) if not good), None) for row in right]
    return np.array([a == b for a, b in zip(found, truth, strict=True)], dtype=bool)


def sibling_auc(
    problems: Sequence[Hashable],
    steps: Sequence[Sequence[Hashable]],
    scores: Sequence[Sequence[float]],
    right: Sequence[Sequence[bool]],
) -> dict[int, np.ndarray]:
    """AUC among the children of one right parent, by depth: what a search lives on, which chooses between next steps.

    For each solution: its problem, its steps, their scores, and whether each is right (once wrong, wrong for good). A
    parent is a problem and steps that are all right, at depth 1 none; its children are the next steps of the solutions
    that begin so. Depth -> one AUC for each parent that has right and wrong children; depths without any are left out.
    """
    children: dict[tuple, tuple[list[float], list[float]]] = {}
    for problem, said, ss, rs in zip(problems, steps, scores, right, strict=True):
        for k, (score, good) in enumerate(_up_to_first_wrong(ss, rs)):
            children.setdefault((problem, *said[:k]), ([], []))[not good].append(score)
    found: dict[int, list[float]] = {}
    for parent, (good, bad) in children.items():
        if good and bad:
            found.setdefault(len(parent), []).append(auc(good, bad))
    return {depth: np.array(found[depth]) for depth in sorted(found)}


def hashed_noise(texts: Sequence[str], seed: int) -> np.ndarray:
    """Standard normal noise, one a text: a hash of seed and text, so the same for equal texts, else independent."""

    def uniform(text: str) -> float:
        digest = blake2b(f"{seed}\0{text}".encode(errors="surrogatepass"), digest_size=8).digest()
        return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52  # inside (0, 1), which 53 bits hold exactly

    drawn = {text: uniform(text) for text in set(texts)}
    return ndtri(np.array([drawn[text] for text in texts], dtype=float))


def blurred(scores: np.ndarray, sd: float, noise: np.ndarray) -> np.ndarray:
    """What a weaker verifier might have said: scores in [0, 1] with sd times the noise on their logits, same shape.

    noise: standard normal, such as hashed_noise of the solutions. The larger sd, the less is left of the order; sd 0
    gives the scores back. The logits of 0 and 1 are infinite: they count as 2 ** -24 and 1 - 2 ** -24, the largest
    number below 1 that a float32 holds. NaN, for a solution without a score, stays NaN.
    """
    scores = np.asarray(scores, dtype=float)
    if not sd >= 0:
        raise InputError(f"sd is {sd}: the noise needs a standard deviation of 0 or more")
    if (scores < 0).any() or (scores > 1).any():
        raise InputError("scores: only values in [0, 1] have a logit; reduce step scores before they are blurred")
    if np.shape(noise) != scores.shape:
        raise InputError(f"noise {np.shape(noise)} and scores {scores.shape}: give one value a score")
    if sd == 0:
        return scores.copy()
    return expit(logit(np.clip(scores, 2**-24, 1 - 2**-24)) + sd * noise)


def _up_to_first_wrong(scores: Sequence[float], right: Sequence[bool]) -> list[tuple[float, bool]]:
    pairs = list(zip(scores, right, strict=True))
    first = next((i for i, (_, good) in enumerate(pairs) if not good), len(pairs))
    return pairs[: first + 1]


def _same_shape(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    if scores.ndim != 2 or scores.shape != correct.shape:
        raise InputError(f"scores {scores.shape} and correct {correct.shape}: give both as problems x solutions")
    return scores
