"""From stored solutions to curves over N: accuracy of a vote at n, pass@k, and intervals. Arrays in, arrays out.

P problems, S solutions of each. Answers are small integers here (see answer_codes), -1 where a solution has none.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from scipy.special import gammaln

from tts.errors import InputError

Rule = Literal["majority", "weighted", "vanilla"]


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
    rng = np.random.default_rng(seed)
    right = np.zeros((problems, len(ns)))
    rows = np.arange(problems)
    for _ in range(draws):
        order = rng.random(codes.shape).argsort(axis=1)
        drawn, weight = np.take_along_axis(codes, order, 1), np.take_along_axis(weights, order, 1)
        # One solution after the other: only the group that it joins can overtake the leader, so the leader is kept, not
        # searched for. A tie goes to the group seen first, in vanilla to the solution drawn first.
        totals = np.zeros((problems, max(codes.max(), 0) + 1))
        first = np.full(totals.shape, samples)
        leader, best = np.full(problems, -1), np.full(problems, -np.inf)
        for n in range(1, samples + 1):
            answered = drawn[:, n - 1] >= 0
            row, group, score = rows[answered], drawn[answered, n - 1], weight[answered, n - 1]
            if rule == "vanilla":
                overtakes = score > best[row]
            else:
                totals[row, group] += score
                first[row, group] = np.minimum(first[row, group], n)
                score = totals[row, group]
                overtakes = (score > best[row]) | ((score == best[row]) & (first[row, group] < first[row, leader[row]]))
            leader[row[overtakes]], best[row[overtakes]] = group[overtakes], score[overtakes]
            if n in ns:
                right[:, list(ns).index(n)] += leader == gold
    return right / draws


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


def mean_interval(values: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Mean over problems with its bootstrap interval: values (P, ...) -> (3, ...): mean, low, high.

    Problems are resampled, because they are what a new benchmark would draw again. Average over seeds before, so that
    the seeds stay nested in their problem; pass a difference of two methods on the same problems for a paired interval.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise InputError("values: no problems to average over")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples) / len(values)
    means = np.tensordot(counts, values, axes=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    mean = values.mean(axis=0)
    return np.stack([mean, np.minimum(low, mean), np.maximum(high, mean)])  # rounding: equal values have no width
