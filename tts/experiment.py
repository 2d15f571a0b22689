"""All methods over all budgets and seeds for one policy and one PRM: what the notebooks' figures start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd

from tts.analysis.curves import VOTES, Rule, mean_coverage, mean_vote, powers_of_four, powers_of_two
from tts.analysis.diversity import best_only
from tts.analysis.grading import grade, grade_searches, outcome_shares, score_array, vote_codes
from tts.errors import check_counts
from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem
from tts.results import collect
from tts.results.collect import Strategy, name_of
from tts.results.published import NotPublishedError
from tts.results.store import Store
from tts.strategies import beam_search, dvts
from tts.tree import Search


def seeds_to(n_max: int, *, seed: int, n_seeds: int, seeds_n_max: int) -> dict[int, int]:
    """The seeds of a run, each with the largest N that it goes to: the first to n_max, the others to seeds_n_max.

    They are seed, seed + 1, ...: n_seeds of them. Large budgets cost most, so only the first seed need go that far.
    """
    check_counts(n_max=n_max, n_seeds=n_seeds, seeds_n_max=seeds_n_max)
    return {seed: n_max} | {seed + i: min(n_max, seeds_n_max) for i in range(1, n_seeds)}


async def greedy_baselines(
    problems: Sequence[Problem],
    policies: Sequence[Policy],
    store: Store,
    *,
    sampling: Sampling = Sampling(),
    concurrency: int = 64,
    patience: float = collect.PATIENCE,
) -> dict[str, pd.DataFrame]:
    """Graded greedy solutions of each policy by its name, one row a problem. Closes the policies.

    Greedy decoding takes only max_tokens from sampling.
    """
    how = {"sampling": Sampling(temperature=0.0, max_tokens=sampling.max_tokens)}
    how |= {"concurrency": concurrency, "patience": patience}
    graded = {}
    for policy in policies:
        [graded[policy.name]] = await samples_of(problems, policy, None, store, seeds={0: 1}, **how)
        await policy.close()
    return graded


async def samples_of(
    problems: Sequence[Problem],
    policy: Policy,
    prm: StepScorer | None,
    store: Store,
    *,
    seeds: Mapping[int, int],
    sampling: Sampling = Sampling(),
    concurrency: int = 64,
    patience: float = collect.PATIENCE,
) -> list[pd.DataFrame]:
    """Independent samples, graded and, with a PRM, scored: one table a seed, with as many samples as seeds says."""
    tables, limits = [], {"concurrency": concurrency, "patience": patience}
    for seed, n in seeds.items():
        of_seed = replace(sampling, seed=seed)
        drawn = await collect.sample(problems, policy, store, n=n, sampling=of_seed, **limits)
        if prm is not None and "scores" not in drawn:  # published samples come with theirs
            drawn = await collect.score(problems, drawn, prm, store, **limits)
        tables.append(grade(drawn, problems))
    return tables


async def searches_of(
    problems: Sequence[Problem],
    strategy: Strategy,
    policy: Policy,
    prm: StepScorer,
    store: Store,
    *,
    n: int,
    seeds: Mapping[int, int],
    sampling: Sampling = Sampling(),
    concurrency: int = 64,
    patience: float = collect.PATIENCE,
) -> list[list[Search | None]]:
    """The searches at budget n: one list a seed that goes so far, the first seed first; in it one search a problem.

    A seed whose searches a replay lacks is left out, which is said; NotPublishedError where it lacks all of them.
    """
    found, lacking = [], None
    limits = {"concurrency": concurrency, "patience": patience}
    for seed in (seed for seed, n_max in seeds.items() if n <= n_max):
        of_seed = replace(sampling, seed=seed)
        try:
            drawn = await collect.search(problems, strategy, policy, prm, store, n=n, sampling=of_seed, **limits)
        except NotPublishedError as error:
            store.say(f"{error}; that seed is left out")
            lacking = error
        else:
            found.append(drawn)
    if lacking and not found:
        raise lacking
    return found


@dataclass
class Sweep:
    """Everything that one policy and one PRM made on P problems. Accuracies are means over the seeds that go so far.

    A method is "majority", "best_of_n_vanilla", "best_of_n_weighted", the name of a strategy, or "dvts_best": DVTS read
    with the best child of each tree alone.
    """

    problems: Sequence[Problem]
    seeds: Mapping[int, int]  # seed -> the largest N that it goes to
    reduction: str  # of a solution's step scores in the votes
    samples: list[pd.DataFrame]  # independent samples, scored and graded; one table a seed
    aside: pd.DataFrame  # n_difficulty more a problem (first seed), which no curve sees
    solutions: dict[str, dict[int, list[pd.DataFrame]]]  # method -> N -> what its searches returned; one table a seed
    searches: dict[str, dict[int, list[Search | None]]]  # strategy -> N -> the first seed's, one a problem; trees
    search_n_max: int = 0  # the searches go to this N; 0: as far as the samples
    without: Collection[int] = ()  # budgets that the searches leave out

    def __post_init__(self):
        self.curve, self._vote = cache(self.curve), cache(self._vote)

    @cached_property
    def ns(self) -> list[int]:
        """1, 2, 4, ... n_max: where the independent samples have points."""
        return powers_of_two(max(self.seeds.values()))

    @cached_property
    def budgets(self) -> list[int]:
        """4, 16, 64, ...: where all methods have points."""
        n_max = max(self.seeds.values())
        return [n for n in powers_of_four(min(n_max, self.search_n_max or n_max)) if n not in self.without]

    def curve(self, rule: Rule) -> np.ndarray:
        """Accuracy of a vote among n independent samples: (P, len(ns)) in [0, 1]."""
        return mean_vote(self.samples, self.problems, rule, self.ns, reduction=self.reduction)

    def vote(self, method: str, rule: Rule = "weighted") -> np.ndarray:
        """Accuracy of a vote among the solutions that a search returned: (P, len(budgets)) in [0, 1]."""
        return self._vote(method, rule)

    def _vote(self, method: str, rule: Rule) -> np.ndarray:
        tables = self.solutions[method].values()
        return np.hstack([mean_vote(one, self.problems, rule, reduction=self.reduction) for one in tables])

    def coverage(self, method: str = "") -> np.ndarray:
        """The chance that any returned solution is right: (P, len(budgets)); of n independent samples (P, len(ns))."""
        if not method:
            return mean_coverage(self.samples, self.problems, self.ns)
        return np.hstack([mean_coverage(one, self.problems) for one in self.solutions[method].values()])

    @cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """Accuracy of the methods that take independent samples, (P, len(ns)), by method."""
        return {method: self.curve(rule) for method, rule in VOTES.items()}

    @cached_property
    def accuracy(self) -> dict[str, np.ndarray]:
        """Accuracy of all methods at the budgets, (P, len(budgets)), by method; searches vote weighted."""
        at = [self.ns.index(n) for n in self.budgets]
        return {name: values[:, at] for name, values in self.curves.items()} | {
            name: self.vote(name) for name in self.solutions
        }

    def stack(self, methods: Sequence[str]) -> np.ndarray:
        """Accuracy of these methods, (methods, P, budgets): what tts.analysis.choice takes."""
        return np.stack([self.accuracy[name] for name in methods])

    def outcomes(self, names: Mapping[str, str], greedy: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """What became of every search, with independent samples and greedy decoding beside it: a row each.

        names: method -> what the table calls it. Shares in [0, 1]: of N returned; right by voting rule; of solutions
        without an answer, why; of trees, what ended them. All but the accuracies are the first seed's. Needs the
        searches (keep_trees); what a replay does not know of them is NaN.
        """
        rules = ("weighted", "majority", "vanilla")
        ends = ("finished", "depth", "tokens", "context", "failed")
        rows = []
        for method, name in names.items():
            right = {rule: self.vote(method, rule).mean(axis=0) for rule in rules}
            for i, n in enumerate(self.budgets):
                solutions, trees = self.solutions[method][n][0], self.searches[method.removesuffix("_best")][n]
                ended = Counter(end for search in trees for end in (search.ended if search else ["failed"]))
                rows.append(
                    {"method": name, "N": n, "returned": len(solutions) / (n * len(self.problems))}
                    | {rule: values[i] for rule, values in right.items()}
                    | outcome_shares(solutions)[["unboxed", "truncated"]].to_dict()
                    | {f"ended: {why}": ended[why] / ended.total() if ended else np.nan for why in ends}
                )
        alone = {"independent": (self.ns[-1], self.samples[0], {r: self.curve(r)[:, -1].mean() for r in rules})}
        for name, graded in greedy.items():  # of one solution, every vote is that solution
            alone[f"greedy {name}"] = (1, graded, dict.fromkeys(rules, graded.correct.mean()))
        for name, (n, graded, right) in alone.items():
            lost = outcome_shares(graded)[["unboxed", "truncated", "failed"]].to_dict()
            rows.append({"method": name, "N": n, "returned": 1.0} | right | lost)
        return pd.DataFrame(rows).set_index(["method", "N"])

    @cached_property
    def oracle(self) -> np.ndarray:
        """pass@1 of the samples aside, (P,): how easy each problem is by its labels."""
        codes, gold = vote_codes(self.aside, self.problems)
        return (codes == gold[:, None]).mean(axis=1)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Mean reduced PRM score of the samples aside, (P,): how easy each problem seems without labels."""
        return score_array(self.aside, self.problems, self.reduction).mean(axis=1)


async def sweep(
    problems: Sequence[Problem],
    policy: Policy,
    prm: StepScorer,
    store: Store,
    *,
    seeds: Mapping[int, int],
    n_difficulty: int = 0,
    strategies: Sequence[Strategy] = (beam_search, dvts),
    reduction: str = "last",
    keep_trees: bool = True,
    search_n_max: int = 0,
    without: Collection[int] = (),
    sampling: Sampling = Sampling(),
    concurrency: int = 64,
    patience: float = collect.PATIENCE,
) -> Sweep:
    """Make what is not stored yet, and return all of it. Closes policy and PRM.

    seeds: see seeds_to; the seed in sampling is not used. strategies: functools.partial sets what they have beside n
    and sampling (tts.results.collect.search). n_difficulty: samples a problem of the first seed beyond its N that only
    the difficulty is estimated from, so that no problem is called easy for the luck of the samples that are graded.
    keep_trees=False forgets the trees once their solutions are graded: they take most of the memory.
    search_n_max: the largest N of the searches, where they are to end before the samples do; 0 for the same.
    without: budgets that no search is to have, such as those that a replay lacks.
    """
    check_counts(0, n_difficulty=n_difficulty, search_n_max=search_n_max)
    first_seed, n_max = next(iter(seeds.items()))
    drawing = {"sampling": sampling, "concurrency": concurrency, "patience": patience}
    drawn = {**seeds, first_seed: n_max + n_difficulty}
    first, *others = await samples_of(problems, policy, prm, store, seeds=drawn, **drawing)
    made = Sweep(
        problems=problems,
        seeds=seeds,
        reduction=reduction,
        samples=[first[first["index"] < n_max], *others],
        aside=first[first["index"] >= n_max],
        solutions={},
        searches={},
        search_n_max=search_n_max,
        without=without,
    )
    for strategy in strategies:
        name = name_of(strategy)
        readings = {name: None} | ({"dvts_best": best_only} if name == "dvts" else {})
        for n in made.budgets:
            found = await searches_of(problems, strategy, policy, prm, store, n=n, seeds=seeds, **drawing)
            for reading, read in readings.items():
                tables = [grade_searches(of_seed, problems, read=read) for of_seed in found]
                made.solutions.setdefault(reading, {})[n] = tables
            if keep_trees:
                made.searches.setdefault(name, {})[n] = found[0]
    await policy.close()
    await prm.close()
    return made
