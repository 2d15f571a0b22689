"""All methods over all budgets and seeds for one policy and PRM: what the notebooks' figures start from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tts import runs, scaling
from tts.curves import METHODS, over_seeds, seeds_to, vote
from tts.errors import InputError
from tts.grading import grade, returned, score_array, vote_codes
from tts.policy import Policy
from tts.prm import StepScorer
from tts.problems import Problem
from tts.store import Store
from tts.strategies import beam_search, dvts
from tts.tree import Search

Strategy = Callable[..., Awaitable[Search]]


async def greedy_baselines(
    problems: Sequence[Problem], policies: Sequence[Policy], store: Store, *, max_tokens: int, concurrency: int = 64
) -> dict[str, pd.DataFrame]:
    """Graded greedy solutions of each policy by its name, one row a problem. Closes the policies."""
    graded = {}
    for policy in policies:
        alone = await runs.sample(
            problems, policy, store, n=1, temperature=0.0, max_tokens=max_tokens, concurrency=concurrency
        )
        graded[policy.name] = grade(alone, problems)
        await policy.close()
    return graded


async def samples_of(
    problems: Sequence[Problem],
    policy: Policy,
    prm: StepScorer,
    store: Store,
    *,
    seeds: Mapping[int, int],
    temperature: float = 0.8,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    concurrency: int = 64,
) -> list[pd.DataFrame]:
    """Independent samples, scored and graded: one table a seed, as many as it goes to (tts.curves.seeds_to)."""
    drawing = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "concurrency": concurrency}
    tables = []
    for seed, n in seeds.items():
        drawn = await runs.sample(problems, policy, store, n=n, seed=seed, **drawing)
        scored = await runs.score(problems, drawn, prm, store, concurrency=concurrency)
        tables.append(grade(scored, problems))
    return tables


async def searches_of(
    problems: Sequence[Problem],
    strategy: Strategy,
    policy: Policy,
    prm: StepScorer,
    store: Store,
    *,
    budgets: Sequence[int],
    seeds: Mapping[int, int],
    width: int = 4,
    depth: int = 40,
    temperature: float = 0.8,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    concurrency: int = 64,
) -> dict[int, list[list[Search | None]]]:
    """Budget -> one list of searches a seed that goes so far, the first seed first; in it one search a problem."""
    drawing = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "concurrency": concurrency}
    return {
        n: [
            await runs.search(
                problems, strategy, policy, prm, store, n=n, seed=seed, width=width, depth=depth, **drawing
            )
            for seed, n_max in seeds.items()
            if n <= n_max
        ]
        for n in budgets
    }


@dataclass(frozen=True)
class Sweep:
    """One policy and one PRM on P problems; all accuracies are means over the seeds that go so far."""

    ns: list[int]  # 1, 2, 4, ... n_max: where the independent samples have points
    budgets: list[int]  # 4, 16, 64, ...: where all methods have
    curves: dict[str, np.ndarray]  # majority, best_of_n_vanilla, best_of_n_weighted: (P, len(ns)) in [0, 1]
    accuracy: dict[str, np.ndarray]  # these and the searches: (P, len(budgets)) in [0, 1]
    graded: pd.DataFrame  # the first seed's n_max samples a problem
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
    strategies: Sequence[Strategy] = (beam_search, dvts),
    width: int = 4,
    depth: int = 40,
    reduction: str = "last",
    seed: int = 0,
    n_seeds: int = 1,
    seeds_n_max: int = 64,
    temperature: float = 0.8,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    concurrency: int = 64,
) -> Sweep:
    """Run what is not stored yet and vote; searches vote weighted, as the paper does. Closes policy and PRM.

    n_difficulty: samples a problem beyond n_max that difficulty alone is estimated from, so that no problem is called
    easy for the luck of the samples that are graded. n_seeds, seeds_n_max: see tts.curves.seeds_to.
    """
    if n_difficulty < 0:
        raise InputError(f"n_difficulty is {n_difficulty}: it must be 0 or more")
    drawing = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "concurrency": concurrency}
    ns, budgets = scaling.powers_of_two(n_max), scaling.powers_of_four(n_max)
    seeds = seeds_to(n_max, seed=seed, n_seeds=n_seeds, seeds_n_max=seeds_n_max)
    drawn = seeds | {seed: n_max + n_difficulty}
    first, *others = await samples_of(problems, policy, prm, store, seeds=drawn, **drawing)
    aside = first[first["index"] >= n_max]
    tables = [first[first["index"] < n_max], *others]
    curves = {
        name: over_seeds(
            vote(table, problems, rule, [n for n in ns if n <= most], reduction=reduction)
            for table, most in zip(tables, seeds.values(), strict=True)
        )
        for name, rule in METHODS.items()
    }
    accuracy = {name: values[:, [ns.index(n) for n in budgets]] for name, values in curves.items()}
    searching = drawing | {"width": width, "depth": depth}
    for strategy in strategies:
        found = await searches_of(problems, strategy, policy, prm, store, budgets=budgets, seeds=seeds, **searching)
        accuracy[strategy.__name__] = search_accuracy(found, problems, reduction=reduction)
    await policy.close()
    await prm.close()

    oracle = predicted = np.empty(0)
    if n_difficulty:
        codes, gold = vote_codes(aside, problems)
        oracle = (codes == gold[:, None]).mean(axis=1)
        predicted = score_array(aside, problems, reduction).mean(axis=1)
    return Sweep(ns, budgets, curves, accuracy, tables[0], aside, oracle, predicted)


def search_accuracy(
    found: Mapping[int, Sequence[Sequence[Search | None]]], problems: Sequence[Problem], *, reduction: str = "last"
) -> np.ndarray:
    """Accuracy (P, budgets) of the weighted vote among what searches_of() found, each budget's mean over its seeds."""
    return np.hstack(
        [
            over_seeds(
                vote(grade(returned(one, problems), problems), problems, "weighted", reduction=reduction)
                for one in of_n
            )
            for of_n in found.values()
        ]
    )
