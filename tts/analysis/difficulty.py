"""How hard a problem is for a policy, and accuracy by difficulty. Arrays in, arrays out; quintile 1 is the easiest.

Oracle difficulty is pass@1, predicted difficulty the mean score that a PRM gives to final answers, which needs no label
(arXiv 2408.03314, section 3.2; the paper takes 2,048 samples a problem). Either must come from other samples than those
whose accuracy is then shown: a problem that was lucky would seem easy and its accuracy high, one and the same luck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri

from tts.analysis.intervals import wilson
from tts.compute_optimal import QUINTILES
from tts.errors import InputError


def quintiles(ease: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Quintile 1 (easiest) ... 5 of each problem from how easy it is (P,): higher is easier.

    Fifths of the ranks, as equal as P allows, the easier ones larger. Equal values, such as many problems at exactly 0
    or 1, are ordered at random by the seed: an edge that falls among them is drawn by lot, not by the data's order.
    """
    ease = np.asarray(ease, float)
    if len(ease) < len(QUINTILES):
        raise InputError(f"n_problems: {len(ease)} problems can't be cut into quintiles, at least 5 are needed")
    if not np.isfinite(ease).all():
        raise InputError("ease: some problems have no difficulty (no sample of them succeeded): leave them out")
    lots = np.random.default_rng(seed).random(len(ease))
    order = np.lexsort((lots, -ease))
    found = np.empty(len(ease), int)
    for quintile, members in zip(QUINTILES, np.array_split(order, len(QUINTILES))):
        found[members] = quintile
    return found


def edges(ease: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """The four values between neighbouring quintiles (falling): halfway between the hardest and the easiest there."""
    return np.array([(ease[quintile == q].min() + ease[quintile == q + 1].max()) / 2 for q in QUINTILES[:-1]])


def expected_misplaced(rate: np.ndarray, samples: int, *, draws: int = 200) -> float:
    """Share of problems that a pass@1 from so many samples puts into another quintile than its true rate (P,) would.

    This is the cost of few samples. Samples are binomial, and the rates given are taken as the truth.
    """
    rng = np.random.default_rng(0)
    truth = quintiles(rate)
    drawn = rng.binomial(samples, rate, size=(draws, len(rate))) / samples
    return float(np.mean([(quintiles(row) != truth).mean() for row in drawn]))


def by_quintile(accuracy: Mapping[str, np.ndarray], quintile: np.ndarray, budgets: Sequence[int]) -> pd.DataFrame:
    """Share right by quintile, budget and method, with its Wilson interval: one row each.

    accuracy: method -> (P, budgets). Columns quintile, n, method, problems, accuracy, low, high.
    """
    rows = []
    for q in QUINTILES:
        for i, n in enumerate(budgets):
            for method, values in accuracy.items():
                if len(values) != len(quintile):
                    raise InputError(f"{method}: accuracy of {len(values)} problems, quintiles of {len(quintile)}")
                members = values[quintile == q, i]
                rows.append((q, n, method, len(members), *wilson(members.sum(), len(members))))
    return pd.DataFrame(rows, columns=["quintile", "n", "method", "problems", "accuracy", "low", "high"])


def step_success(problems: Sequence[str], right: Sequence[Sequence[bool]]) -> pd.DataFrame:
    """How likely each step is to be right where all before it are: one row for each problem and step, by first sight.

    For each sample: its problem, and whether each of its steps is right (once wrong, wrong for good). Columns: problem;
    step, from 1; reached, the samples that have such a step and only right ones before it; success, the share of
    them in which it is right.
    """
    reached, passed = Counter(), Counter()
    for problem, row in zip(problems, right, strict=True):
        alive = next((i for i, good in enumerate(row) if not good), len(row))  # steps before the first wrong one
        reached.update((problem, i + 1) for i in range(min(alive + 1, len(row))))
        passed.update((problem, i + 1) for i in range(alive))
    rows = [(*place, count, passed[place] / count) for place, count in reached.items()]
    return pd.DataFrame(rows, columns=["problem", "step", "reached", "success"])


def power(
    difference: np.ndarray,
    quintile: np.ndarray,
    *,
    effect: float = 0.05,
    level: float = 0.95,
    chance: float = 0.8,
) -> pd.DataFrame:
    """How large a paired difference could be told from 0, one row a quintile; difference (P,) of values in [-1, 1].

    Columns: problems; differ, those whose difference is not 0; error, the standard error of the quintile's mean
    difference; detectable, the true difference whose interval at this level leaves 0 out with this chance; needed,
    about how many problems a quintile it takes for `effect`. All from the spread that the data have, with one problem
    more each way, as in the ledger's intervals (tts.companion.ledger.rows): equal differences of a few problems do not
    prove that there is no spread. Where few problems differ, the numbers are those of these two more than of the data.
    """
    z = ndtri((1 + level) / 2) + ndtri(chance)
    rows = []
    for q in QUINTILES:
        members = np.append(difference[quintile == q], [1.0, -1.0])
        if len(members) < 3:
            raise InputError(f"quintile {q} has no problems: give more problems")
        error = members.std() / len(members) ** 0.5
        differ = int((np.abs(members[:-2]) > 1e-9).sum())  # means over draws or seeds may miss 0 by rounding
        rows.append((q, len(members) - 2, differ, error, z * error, int(np.ceil((z * members.std() / effect) ** 2))))
    columns = ["quintile", "problems", "differ", "error", "detectable", "needed"]
    return pd.DataFrame(rows, columns=columns).set_index("quintile")
