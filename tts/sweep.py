"""All methods over all budgets for one policy and PRM: what difficulty and the compute-optimal choice start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tts import runs, scaling
from tts.errors import InputError
from tts.grading import grade, returned, score_array, vote_codes
from tts.policy import Policy
from tts.prm import StepScorer
from tts.problems import Problem
from tts.store import Store
from tts.strategies import beam_search, dvts

RULES = {"majority": "majority", "best_of_n_vanilla": "vanilla", "best_of_n_weighted": "weighted"}


@dataclass(frozen=True)
class Sweep:
    """One policy and one PRM on P problems."""

    ns: list[int]  # 1, 2, 4, ... n_max: where the independent samples have points
    budgets: list[int]  # 4, 16, 64, ...: where all methods have
    curves: dict[str, np.ndarray]  # majority, best_of_n_vanilla, best_of_n_weighted: (P, len(ns)) in [0, 1]
    accuracy: dict[str, np.ndarray]  # these, beam_search and dvts: (P, len(budgets)) in [0, 1]
    graded: pd.DataFrame  # the n_max samples a problem that the curves come from
    aside: pd.DataFrame  # n_difficulty more a problem, which no curve has seen
    oracle: np.ndarray  # (P,) pass@1 of the samples aside; empty where there are none
    predicted: np.ndarray  # (P,) mean reduced PRM score of the same samples, for which no label is used

    def stack(self, methods: Sequence[str]) -> np.ndarray:
        """Accuracy of these methods, (methods, P, budgets): what tts.optimal takes."""
        return np.stack([self.accuracy[name] for name in methods])


async def sweep(
    problems: Sequence[Problem],
    policy: Policy,
    prm: StepScorer,
    store: Store,
    *,
    n_max: int,
    n_difficulty: int = 0,
    width: int = 4,
    depth: int = 40,
    reduction: str = "last",
    seed: int = 0,
    temperature: float = 0.8,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    concurrency: int = 64,
) -> Sweep:
    """Run what is not stored yet and vote; searches vote weighted, as the paper does. Closes policy and PRM.

    n_difficulty: samples a problem beyond n_max that difficulty alone is estimated from, so that no problem is called
    easy for the luck of the samples that are graded.
    """
    if n_difficulty < 0:
        raise InputError(f"n_difficulty is {n_difficulty}: it must be 0 or more")
    drawing = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "concurrency": concurrency}
    ns, budgets = scaling.powers_of_two(n_max), scaling.powers_of_four(n_max)
    samples = await runs.sample(problems, policy, store, n=n_max + n_difficulty, seed=seed, **drawing)
    scored = await runs.score(problems, samples, prm, store, concurrency=concurrency)
    drawing |= {"width": width, "depth": depth, "seed": seed}
    searches = {
        strategy.__name__: {
            n: await runs.search(problems, strategy, policy, prm, store, n=n, **drawing) for n in budgets
        }
        for strategy in (beam_search, dvts)
    }
    await policy.close()
    await prm.close()

    graded = grade(scored, problems)
    aside = graded["index"] >= n_max
    codes, gold = vote_codes(graded[~aside], problems)
    scores = score_array(graded[~aside], problems, reduction)
    curves = {name: scaling.vote_curve(codes, gold, ns, rule=rule, scores=scores) for name, rule in RULES.items()}
    at = [ns.index(n) for n in budgets]
    accuracy = {name: values[:, at] for name, values in curves.items()}
    for name, found in searches.items():
        accuracy[name] = np.hstack(
            [_voted(grade(returned(f, problems), problems), problems, reduction) for f in found.values()]
        )
    oracle = predicted = np.empty(0)
    if n_difficulty:
        codes, gold = vote_codes(graded[aside], problems)
        oracle = (codes == gold[:, None]).mean(axis=1)
        predicted = score_array(graded[aside], problems, reduction).mean(axis=1)
    return Sweep(ns, budgets, curves, accuracy, graded[~aside], graded[aside], oracle, predicted)


def _voted(graded: pd.DataFrame, problems: Sequence[Problem], reduction: str) -> np.ndarray:
    """Accuracy (P, 1) of the weighted vote among all the solutions that a search returned."""
    codes, gold = vote_codes(graded, problems)
    scores = score_array(graded, problems, reduction)
    return scaling.vote_curve(codes, gold, [codes.shape[1]], rule="weighted", scores=scores)
