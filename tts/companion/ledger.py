"""The ledger: what each claim of the writeup means here, when it counts as reproduced, and the rows that say so.

One pure function a claim: arrays in, rows out. The claims are the writeup's, in its order; a claim with several parts
has a letter for each. All differences are paired (same problems), in points of accuracy unless said otherwise, with
95 % bootstrap intervals over problems. Where a claim is asked in several parts, such as several budgets, the intervals
are widened after Bonferroni, so that all of them hold at once.

Estimands and criteria were written down before a search was run on the test split and depend on no result.

P problems. ByN maps a budget N to the accuracy of each problem, (P,) of values in [0, 1]; by_n() makes one. quintile is
that of each problem, (P,) of 1 (easiest) to 5. A rival is a larger policy's greedy decoding: its name and whether it is
right on each problem, (P,); None where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import getdoc
from typing import Literal

import numpy as np
import pandas as pd

from tts.analysis.intervals import mean_interval
from tts.errors import InputError

MARGIN = 0.02  # two points: what "reaches" may fall short by and "flat" may still gain

Criterion = Literal["above", "below", "reaches", "flat"]
Verdict = Literal["reproduced", "not reproduced", "too few problems to judge"]
ByN = Mapping[int, np.ndarray]
Rival = tuple[str, np.ndarray]

CRITERIA: dict[Criterion, str] = {
    "above": "reproduced if the whole interval is above 0; not if all of it is below 2 points (and not above 0)",
    "below": "reproduced if the whole interval is below 0; not if all of it is above -2 points (and not below 0)",
    "reaches": "reproduced if the whole interval is above -2 points; not if all of it is below that",
    "flat": "reproduced if the whole interval is below 2 points; not if all of it is above that",
}
COLUMNS = ["claim", "writeup", "part", "problems", "ours", "low", "high", "verdict"]


@dataclass(frozen=True)
class Claim:
    """One claim as it was written down beforehand."""

    says: str  # the writeup, in our words
    estimand: str  # what is computed
    criterion: Criterion
    figure: str  # the figure that shows it


class NotAskedError(Exception):
    """A claim cannot be asked of this run; the message says what it needs."""


CLAIMS: dict[str, Claim] = {}


def claim(name: str, criterion: Criterion, figure: str, says: str) -> Callable[[Callable], Callable]:
    """Enter a claim into the ledger. Its function returns part -> paired differences (P,), and then gives rows().

    The first line of its docstring is the estimand. NaN marks a problem that a part leaves out, such as one of another
    quintile. A claim that cannot be asked of a run (NotAskedError) is one row whose verdict says what it needs.
    """

    def decorate(differences: Callable[..., Mapping[str, np.ndarray]]) -> Callable[..., pd.DataFrame]:
        CLAIMS[name] = Claim(says, getdoc(differences).splitlines()[0], criterion, figure)

        @wraps(differences)
        def ask(*arguments: object, **settings: object) -> pd.DataFrame:
            try:
                return rows(name, differences(*arguments, **settings))
            except NotAskedError as needs:
                return pd.DataFrame(
                    [(name, says, "", 0, np.nan, np.nan, np.nan, f"not asked: {needs}")], columns=COLUMNS
                )

        return ask

    return decorate


def judge(criterion: Criterion, low: float, high: float) -> Verdict:
    """The verdict that an interval gives under a criterion; accuracies and differences in [-1, 1]."""
    if criterion in ("below", "flat"):  # mirror images
        mirrored = {"below": "above", "flat": "reaches"}
        return judge(mirrored[criterion], -high, -low)
    bar = 0.0 if criterion == "above" else -MARGIN
    if low > bar:
        return "reproduced"
    return "not reproduced" if high < (MARGIN if criterion == "above" else bar) else "too few problems to judge"


def rows(name: str, differences: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a part: differences maps what is asked (such as "N = 16") to a paired difference a problem, (P,).

    The parts' intervals hold together: each is at the level 1 - 0.05 / parts. NaN leaves a problem out.
    """
    if name not in CLAIMS:
        raise InputError(f"claim {name!r} is not in the ledger: choose one of {', '.join(CLAIMS)}")
    found = CLAIMS[name]
    table = []
    for part, values in differences.items():
        values = np.asarray(values, float)
        values = values[~np.isnan(values)]
        if not len(values):
            raise InputError(f"claim {name}, {part}: no problem has a difference; give more problems")
        # One problem more each way (after Agresti and Min 2005): equal differences of a few problems prove nothing.
        _, low, high = mean_interval(np.append(values, [1.0, -1.0]), level=1 - 0.05 / len(differences))
        ours = values.mean()
        table.append((name, found.says, part, len(values), ours, low, high, judge(found.criterion, low, high)))
    return pd.DataFrame(table, columns=COLUMNS)


def by_n(values: np.ndarray, ns: Sequence[int]) -> dict[int, np.ndarray]:
    """(P, len(ns)) as N -> (P,)."""
    return dict(zip(ns, values.T, strict=True))


def _last_doubling(curve: ByN) -> tuple[str, np.ndarray]:
    """What the last step of N gained, ("N = 32 to 64", (P,)); below N = 64 nothing need be flat yet."""
    *_, before, last = sorted(curve)
    if last < 64:
        raise NotAskedError("n_max of 64 or more")
    return f"N = {before} to {last}", curve[last] - curve[before]


def _inside(values: np.ndarray, quintile: np.ndarray, q: int) -> np.ndarray:
    """Values of the problems in quintile q, NaN elsewhere."""
    return np.where(quintile == q, values, np.nan)


# --- Majority voting ---


@claim("1a", "above", "05_majority_voting", "Majority voting clearly beats greedy")
def claim_1a(majority: ByN, greedy: np.ndarray | None) -> Mapping[str, np.ndarray]:
    """majority at the largest N - greedy of the same policy"""
    if greedy is None:
        raise NotAskedError("greedy decoding of policy_model: name it in greedy_models")
    n = max(majority)
    return {f"N = {n}": majority[n] - greedy}


@claim("1b", "flat", "05_majority_voting", "It flattens at about N = 64")
def claim_1b(majority: ByN) -> Mapping[str, np.ndarray]:
    """majority at 64 - at 32 (at the last doubling where N goes on)"""
    return dict([_last_doubling(majority)])


# --- Best-of-N ---


@claim("2a", "above", "07_best_of_n", "Weighted Best-of-N always beats vanilla")
def claim_2a(weighted: ByN, vanilla: ByN) -> Mapping[str, np.ndarray]:
    """weighted - vanilla at N = 4, 16, 64, 256"""
    return {f"N = {n}": weighted[n] - vanilla[n] for n in (4, 16, 64, 256) if n in weighted}


@claim("2b", "above", "07_best_of_n", "... most at large N")
def claim_2b(weighted: ByN, vanilla: ByN) -> Mapping[str, np.ndarray]:
    """(weighted - vanilla) at the largest N - the same at N = 4"""
    n = max(weighted)
    if n <= 4:
        raise NotAskedError("n_max above 4")
    return {f"N = {n} against 4": (weighted[n] - vanilla[n]) - (weighted[4] - vanilla[4])}


@claim("2c", "flat", "07_best_of_n", "Both flatten by the largest N")
def claim_2c(weighted: ByN, vanilla: ByN) -> Mapping[str, np.ndarray]:
    """weighted and vanilla, each: the last doubling of N"""
    gains = {name: _last_doubling(curve) for name, curve in (("weighted", weighted), ("vanilla", vanilla))}
    return {f"{name}, {step}": gain for name, (step, gain) in gains.items()}


@claim("2d", "below", "07_best_of_n", "Both stay below greedy 8B")
def claim_2d(weighted: ByN, rival: Rival | None) -> Mapping[str, np.ndarray]:
    """weighted at the largest N - greedy of the policy that plays 8B"""
    name, greedy = _needs_rival(rival, "a third one, which plays 8B")
    n = max(weighted)
    return {f"weighted at N = {n} against greedy {name}": weighted[n] - greedy}


def _needs_rival(rival: Rival | None, which: str) -> Rival:
    if rival is None:
        raise NotAskedError(f"more greedy_models: {which}")
    return rival


# --- Beam search ---


@claim("3a", "reaches", "08_beam_search", "Beam search at N = 4 reaches Best-of-N at 16")
def claim_3a(beam: ByN, weighted: ByN) -> Mapping[str, np.ndarray]:
    """beam search at 4 - weighted Best-of-N at 16"""
    if 16 not in weighted:
        raise NotAskedError("n_max of 16 or more")
    return {"N = 4 against 16": beam[4] - weighted[16]}


@claim("3b", "reaches", "08_beam_search", "Beam search reaches greedy 8B at about N = 32")
def claim_3b(beam: ByN, rival: Rival | None) -> Mapping[str, np.ndarray]:
    """beam search at 32 (between 16 and 64 in log2 N) - greedy of the policy that plays 8B"""
    if 64 not in beam:
        raise NotAskedError("n_max of 64 or more")
    name, greedy = _needs_rival(rival, "a third one, which plays 8B")
    # N = 32 is not on the grid: the mean of 16 and 64 is half way between them in log2 N.
    return {f"N = 32 (interpolated) against greedy {name}": (beam[16] + beam[64]) / 2 - greedy}


# --- By difficulty; quintile: (P,), 1 easiest ... 5 ---


@claim("4a", "above", "09_difficulty", "Beam search gains consistently on quintiles 3-5")
def claim_4a(beam: ByN, weighted: ByN, quintile: np.ndarray) -> Mapping[str, np.ndarray]:
    """beam search - weighted Best-of-N, mean over all budgets, in quintiles 3, 4, 5"""
    gain = np.mean([beam[n] - weighted[n] for n in beam], axis=0)
    return {f"quintile {q}": _inside(gain, quintile, q) for q in (3, 4, 5)}


@claim("4b", "below", "09_difficulty", "On easy problems at large N beam search is worse than Best-of-N")
def claim_4b(beam: ByN, weighted: ByN, quintile: np.ndarray) -> Mapping[str, np.ndarray]:
    """beam search - weighted Best-of-N at the largest N in quintile 1"""
    n = _largest_of_several(beam)
    return {f"quintile 1, N = {n}": _inside(beam[n] - weighted[n], quintile, 1)}


@claim("4c", "below", "09_difficulty", "In quintile 2 majority is the worst at every N but the largest")
def claim_4c(majority: ByN, weighted: ByN, beam: ByN, quintile: np.ndarray) -> Mapping[str, np.ndarray]:
    """majority - the mean of Best-of-N and beam search, mean over all budgets but the largest, in quintile 2"""
    largest = _largest_of_several(beam)
    smaller = [majority[n] - (weighted[n] + beam[n]) / 2 for n in beam if n < largest]
    return {f"quintile 2, N < {largest}": _inside(np.mean(smaller, axis=0), quintile, 2)}


@claim("4d", "above", "09_difficulty", "In quintile 2 Best-of-N is ahead of beam search at the largest N")
def claim_4d(weighted: ByN, beam: ByN, quintile: np.ndarray) -> Mapping[str, np.ndarray]:
    """weighted Best-of-N - beam search at the largest N in quintile 2"""
    n = _largest_of_several(beam)
    return {f"quintile 2, N = {n}": _inside(weighted[n] - beam[n], quintile, 2)}


def _largest_of_several(curve: ByN) -> int:
    if len(curve) < 2:
        raise NotAskedError("n_max of 16 or more")
    return max(curve)


# --- Diversity ---


@claim("5", "below", "08_collapse", "Beam search loses diversity: the tree collapses")
def claim_5(beam: ByN, independent: ByN) -> Mapping[str, np.ndarray]:
    """distinct solutions among N = largest, as a share of N: beam search - independent samples"""
    n = max(beam)
    return {f"N = {n}": (beam[n] - independent[n]) / n}


# --- DVTS ---


@claim("6a", "above", "10_all_methods", "Beam search is better at small N")
def claim_6a(beam: ByN, dvts: ByN) -> Mapping[str, np.ndarray]:
    """beam search - DVTS at N = 4 and 16"""
    return {f"N = {n}": beam[n] - dvts[n] for n in beam if n <= 16}


@claim("6b", "above", "10_all_methods", "DVTS is better at large N")
def claim_6b(beam: ByN, dvts: ByN) -> Mapping[str, np.ndarray]:
    """DVTS - beam search at the largest N"""
    n = _large(beam)
    return {f"N = {n}": dvts[n] - beam[n]}


@claim("6c", "above", "11_difficulty", "DVTS gains on easy and medium problems at large N")
def claim_6c(beam: ByN, dvts: ByN, quintile: np.ndarray) -> Mapping[str, np.ndarray]:
    """DVTS - beam search at the largest N in quintiles 1, 2, 3"""
    n = _large(beam)
    return {f"quintile {q}, N = {n}": _inside(dvts[n] - beam[n], quintile, q) for q in (1, 2, 3)}


def _large(curve: ByN) -> int:
    if max(curve) < 64:
        raise NotAskedError("n_max of 64 or more")
    return max(curve)


# --- The compute-optimal choice ---


@claim("7", "above", "12_compute_optimal", "Compute-optimal beats each single method")
def claim_7(compute_optimal: ByN, best_single: ByN) -> Mapping[str, np.ndarray]:
    """compute-optimal, chosen on one fold and measured on the other - the best single method, chosen likewise"""
    # Other problems would have led to other choices.
    gain = np.stack([compute_optimal[n] - best_single[n] for n in compute_optimal], axis=1)
    widened = allow_for_choice(gain).T
    return {f"N = {n}": values for n, values in zip(compute_optimal, widened, strict=True)}


def allow_for_choice(gain: np.ndarray) -> np.ndarray:
    """The same mean over problems (axis 0), with deviations times sqrt(2), which allow for the choices too.

    In simulated benchmarks the gain of a choice varies about 1.5 times as much as its interval says, and with this
    factor the intervals hold the true gain about 95 times in 100 (tests/test_choice.py).
    """
    mean = gain.mean(axis=0)
    return mean + 2**0.5 * (gain - mean)


# --- Larger models ---


@claim("8a", "above", "02_headline", "1B with compute-optimal passes 8B")
def claim_8a(policy: str, compute_optimal: ByN, rival: Rival | None) -> Mapping[str, np.ndarray]:
    """compute-optimal at the largest N - greedy of policy 8B"""
    return _passes(policy, compute_optimal, _needs_rival(rival, "a third one, which plays 8B"))


@claim("8b", "above", "13_second_policy", "3B with compute-optimal passes 70B")
def claim_8b(policy: str, compute_optimal: ByN, rival: Rival | None) -> Mapping[str, np.ndarray]:
    """second policy: compute-optimal at its largest N - greedy of the policy that plays 70B"""
    return _passes(policy, compute_optimal, _needs_rival(rival, "a fourth one, which plays 70B"))


def _passes(policy: str, compute_optimal: ByN, rival: Rival) -> Mapping[str, np.ndarray]:
    n, (name, greedy) = max(compute_optimal), rival
    return {f"{policy}, N = {n}, against {name}": compute_optimal[n] - greedy}
