"""What every notebook begins with: its parameters checked, its folders found, its models opened but not loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd

from tts import answers, experiment
from tts.analysis.cost import size_of
from tts.analysis.curves import greedy_points, powers_of_four, powers_of_two
from tts.companion.ledger import Rival
from tts.companion.parameters import check_parameters, figures_folder, load_profile, prms_of, store_folder
from tts.errors import InputError, check_counts
from tts.experiment import Sweep, seeds_to
from tts.models.open import open_policy, open_prm
from tts.plots import saving
from tts.plots.style import style
from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem, load_problems
from tts.reductions import reduce_scores
from tts.results.collect import Strategy
from tts.results.keys import KeptKeys
from tts.results.store import Store
from tts.strategies import beam_search, dvts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the embedded models were made to match the real experiment in: these models on these problems, sampled and scored
# in this way. Sizes of a run (problems, N, seeds) and the settings of the searches are free.
MATCHED = (
    "problems",
    "policy_model",
    "second_model",
    "greedy_models",
    "prm_model",
    "reduction",
    "temperature",
    "top_p",
    "max_tokens",
    "system_prompt",
)


@dataclass
class Setup:
    """A notebook's parameters as what they stand for; what a notebook has no parameter for is empty."""

    parameters: Mapping[str, object]
    folder: Path  # of its figures
    store: Store
    problems: list[Problem]
    sampling: Sampling
    seeds: dict[int, int]  # seed -> the largest N that it goes to
    ns: list[int]  # 1, 2, 4, ... n_max: where the curves of independent samples have points
    budgets: list[int]  # 4, 16, 64, ...: where the searches have points
    policy: Policy
    second_policy: Policy | None
    prm: StepScorer | None
    other_prms: list[StepScorer]  # compared with prm
    baselines: list[Policy]

    @property
    def drawing(self) -> dict[str, object]:
        """The arguments that everything that samples takes."""
        return {"sampling": self.sampling, "concurrency": self.parameters["concurrency"]}

    def bind(self, strategy: Strategy, **changes: object) -> Strategy:
        """A strategy with this notebook's settings (beam_width, depth, ...), or changes of them."""
        names = [name for name in ("beam_width", "depth", "lookahead", "drop_duplicates") if name in self.parameters]
        return partial(strategy, **{name: self.parameters[name] for name in names} | changes)

    @property
    def mirrors(self) -> bool:
        """Whether the run is one of the embedded world that mirrors the real experiment: the default profile's own."""
        default = load_profile("default")
        return all(self.parameters[name] == default[name] for name in MATCHED if name in self.parameters)

    def rival(self, greedy: Mapping[str, pd.DataFrame], place: int, *, policy: Policy | None = None) -> Rival | None:
        """The baseline at this place of greedy_models (2 plays 8B, 3 plays 70B) and its size against the policy's own.

        Sizes are the weights that multiply a token: of embeddings those that also make logits. None: there is no such
        baseline.
        """
        if place >= len(greedy):
            return None
        name = list(greedy)[place]
        return Rival(name, greedy[name].correct.to_numpy(float), self._times(name, policy or self.policy))

    def _times(self, name: str, policy: Policy) -> float:
        """How many times as many weights the baseline of this name has as a policy; NaN where that is unknown."""
        baseline = next(one for one in self.baselines if one.name == name)
        mine, other = (size_of(one) for one in (policy, baseline))
        return (other.weights + other.head) / (mine.weights + mine.head) if mine and other else float("nan")

    def lines(self, greedy: Mapping[str, pd.DataFrame], *, policy: Policy | None = None) -> pd.DataFrame:
        """The greedy baselines as lines of a figure (tts.plots.accuracy), with labels that say how large they are."""
        points = greedy_points(greedy)
        times = [self._times(name, policy or self.policy) for name in greedy]
        sizes = [f", {x:.{0 if x >= 10 else 1}f} times larger" if x >= 1.05 else "" for x in times]
        return points.assign(label=[f"{name}{size}" for name, size in zip(greedy, sizes, strict=True)])

    @property
    def changed(self) -> dict[str, object]:
        """The parameters that differ from the committed run's, with their values."""
        default = load_profile("default")
        return {name: value for name, value in self.parameters.items() if value != default[name]}

    @property
    def described(self) -> str:
        """What was run, in a sentence: the end of every caption."""
        given = self.parameters
        parts = [f"{self.policy.name} on {len(self.problems)} problems of {given['problems']}, N to {self.ns[-1]}"]
        if self.prm:
            parts.append(f"verifier {self.prm.name} with the reduction {given['reduction']}")
        if "beam_width" in given:
            parts.append(f"M = {given['beam_width']}")
        first, *others = self.seeds.values()
        if others:
            parts.append(f"means over {len(self.seeds)} seeds up to N = {min([first, *others])}")
        return f"Run: {', '.join(parts)}."

    def save_figure(self, fig: Figure, name: str, data: pd.DataFrame | None, says: str) -> None:
        """tts.plots.saving.save_figure into this run's folder, with what was run in the caption."""
        about = "" if data is None else self.described
        saving.save_figure(fig, name, data, says, folder=self.folder, about=about)

    def _repr_markdown_(self) -> str:
        """What this run takes; above it a banner where the committed sentences are about another run."""
        given = self.parameters
        models = [f"`{self.policy.name}` to N = {self.ns[-1]}"]
        if self.second_policy:
            models.append(f"`{self.second_policy.name}` to N = {given['second_n_max']}")
        parts = [f"This run takes {len(self.problems)} problems of `{given['problems']}`, {', '.join(models)}"]
        if self.prm:
            parts.append(f"`{self.prm.name}` as the verifier")
        if self.baselines:
            parts.append(f"greedy decoding of {', '.join(f'`{one.name}`' for one in self.baselines)}")
        about = f"{'; '.join(parts)}. What the store has already is not made again."
        if not self.changed:
            return about
        changes = ", ".join(f"`{name} = {value!r}`" for name, value in self.changed.items())
        return (
            f"> **This is not the committed run**: {changes}. Tables and figures are this run's; the sentences between "
            f"them are about the committed one. Figures go to `{self.folder.name}/`.\n\n{about}"
        )

    async def samples(self, *, prm: StepScorer | None = None) -> list[pd.DataFrame]:
        """The policy's independent samples, graded and, with a PRM, scored; one table a seed. Closes both."""
        tables = await experiment.samples_of(
            self.problems, self.policy, prm, self.store, seeds=self.seeds, **self.drawing
        )
        for model in filter(None, (self.policy, prm)):
            await model.close()
        return tables

    async def greedy(self) -> dict[str, pd.DataFrame]:
        """Graded greedy solutions of the baselines by name, one row a problem."""
        concurrency = self.parameters["concurrency"]
        return await experiment.greedy_baselines(
            self.problems, self.baselines, self.store, max_tokens=self.sampling.max_tokens, concurrency=concurrency
        )

    async def sweep(
        self,
        *,
        problems: Sequence[Problem] | None = None,
        policy: Policy | None = None,
        prm: StepScorer | None = None,
        seeds: Mapping[int, int] | None = None,
        strategies: Sequence[Strategy] = (beam_search, dvts),
        settings: Mapping[str, object] = MappingProxyType({}),
        keep_trees: bool = False,
        search_n_max: int = 0,
    ) -> Sweep:
        """tts.experiment.sweep with this notebook's parameters, or what is given in place of them.

        settings: those of the strategies, such as beam_width.
        """
        return await experiment.sweep(
            problems or self.problems,
            policy or self.policy,
            prm or self.prm,
            self.store,
            seeds=seeds or self.seeds,
            n_difficulty=self.parameters.get("n_difficulty", 0),
            strategies=[self.bind(strategy, **settings) for strategy in strategies],
            reduction=self.parameters["reduction"],
            keep_trees=keep_trees,
            search_n_max=search_n_max,
            **self.drawing,
        )

    @property
    def compared(self) -> dict[str, object]:
        """The arguments of sweep() for what verifiers are compared on: some problems, the first seed, a smaller N."""
        given = self.parameters
        return {
            "problems": self.problems[: given["verifier_problems"]],
            "seeds": {given["seed"]: given["n_max"]},
            "search_n_max": given["verifier_n_max"],
        }

    async def by_verifier(self) -> dict[str, Sweep]:
        """That sweep with each verifier, prm and other_prms, by its name."""
        return {prm.name: await self.sweep(prm=prm, **self.compared) for prm in (self.prm, *self.other_prms)}


def set_up(parameters: Mapping[str, object]) -> Setup:
    """Check a notebook's variables (its `globals()`), find what they name and use the project's style for figures.

    Raises InputError, one line, for what is wrong with them, before a model is loaded.
    """
    check_parameters(parameters)
    given = {name: parameters[name] for name in load_profile("default") if name in parameters}
    counts = "n_max second_n_max n_difficulty probe beam_width depth concurrency verifier_problems".split()
    check_counts(**{name: given[name] for name in counts if name in given})
    check_counts(0, lookahead=given.get("lookahead", 0))
    if "reduction" in given:
        reduce_scores([1.0], given["reduction"])
    sampling = Sampling(given["temperature"], given["top_p"], given["max_tokens"], given["seed"])
    n_max = given["n_max"]
    seeds = seeds_to(
        n_max, seed=given["seed"], n_seeds=given.get("n_seeds", 1), seeds_n_max=given.get("seeds_n_max", n_max)
    )
    budgets = powers_of_four(n_max) if "depth" in given else []
    for name in ("second_n_max", "verifier_n_max"):  # there are searches too
        if given.get(name, 4) < 4:
            raise InputError(f"{name} is {given[name]}: the smallest budget of a search is 4")
    problems = load_problems(given["problems"], n=given["n_problems"])
    least = 10 if {"probe", "second_model"} & set(given) else 5 if "n_difficulty" in given else 1
    if len(problems) < least:
        raise InputError(f"n_problems: {len(problems)} problems are too few for quintiles here: give at least {least}")
    scoring = {"engine": given.get("prm_engine"), "problems": problems}
    others = prms_of(given["prm_model"], given["other_prms"])[1:] if "other_prms" in given else []
    prompted = {"system_prompt": given["system_prompt"]}
    names = [name.strip() for name in given.get("greedy_models", "").split(",") if name.strip()]
    if given.get("second_model") == given["policy_model"]:
        raise InputError(f"second_model is {given['second_model']}: give another policy than policy_model")
    store = Store(store_folder(given["store"]))
    found = Setup(
        parameters=given,
        folder=figures_folder(parameters),
        store=store,
        problems=problems,
        sampling=sampling,
        seeds=seeds,
        ns=powers_of_two(n_max),
        budgets=budgets,
        policy=open_policy(given["policy_model"], engine=given["engine"], **prompted),
        second_policy=open_policy(given["second_model"], parameter="second_model", engine=given["engine"], **prompted)
        if given.get("second_model")
        else None,
        prm=open_prm(given["prm_model"], **scoring) if "prm_model" in given else None,
        other_prms=[open_prm(name, parameter="other_prms", **scoring) for name in others],
        baselines=[
            open_policy(name, parameter="greedy_models", engine=given["greedy_engine"], **prompted) for name in names
        ],
    )
    if "probe" in given and not given["probe"] < budgets[0]:
        raise InputError(f"probe is {given['probe']}: it must be below the smallest budget, {budgets[0]}")
    if "probe" in given and given["probe"] > given["n_difficulty"]:
        raise InputError(f"probe is {given['probe']}: it must be at most n_difficulty, {given['n_difficulty']}")
    answers.remember(KeptKeys(store))
    style()
    return found
