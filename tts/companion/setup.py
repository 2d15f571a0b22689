"""What every notebook begins with: its parameters checked, its folders found, its models opened but not loaded."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tts import answers, experiment
from tts.analysis.cost import size_of
from tts.analysis.curves import greedy_points, powers_of_four, powers_of_two
from tts.companion.ledger import Rival
from tts.companion.machine import plan_engines
from tts.companion.parameters import (
    MACHINE,
    check_parameters,
    check_ranges,
    figures_folder,
    load_profile,
    names_of,
    notebooks,
    prms_of,
    store_folder,
)
from tts.errors import InputError
from tts.experiment import Sweep, seeds_to
from tts.models.open import open_policy, open_prm
from tts.models.plan import Gpu
from tts.plots import saving
from tts.plots.style import style
from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem, load_problems
from tts.results.collect import Strategy, settings_of_search
from tts.results.keys import KeptKeys
from tts.results.published import GREEDY, GREEDY_SOURCE, short_name
from tts.results.replay import PublishedScorer, ReplayStore, greedy_baseline, published_policy
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


@dataclass(repr=False)
class Setup:
    """What a notebook's parameters stand for; what it has no parameter for is empty."""

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
    # Greedy accuracies in [0, 1] of the baselines that are not run, by name: of all in a replay, else of those that do
    # not fit on this machine.
    published: dict[str, float] = field(default_factory=dict)

    @property
    def drawing(self) -> dict[str, object]:
        """The arguments that everything that samples takes."""
        return {
            "sampling": self.sampling,
            "concurrency": self.parameters["concurrency"],
            "patience": self.parameters["patience"],
        }

    @property
    def second_seeds(self) -> dict[int, int]:
        """The one seed of the second policy and its N; in a replay the first that is published."""
        seed, n = self.parameters["seed"], self.parameters["second_n_max"]
        if isinstance(self.store, ReplayStore):
            seeds = [one.seed for one in self.store.configs(self.second_policy.name, "best_of_n") if one.n >= n]
            seed = min(seeds, default=seed)
        return {seed: n}

    def bind(self, strategy: Strategy, **changes: object) -> Strategy:
        """A strategy with those of the settings here that it takes (beam_width, depth, ...), or changes of them."""
        settings = ("beam_width", "depth", "lookahead", "drop_duplicates")
        its = inspect.signature(strategy).parameters
        names = [name for name in settings if name in self.parameters and name in its]
        return partial(strategy, **{name: self.parameters[name] for name in names} | changes)

    @property
    def mirrors(self) -> bool:
        """Whether the run is one of the embedded world that mirrors the real experiment: the default profile's own."""
        default = load_profile("default")
        return all(self.parameters[name] == default[name] for name in MATCHED if name in self.parameters)

    def rival(self, greedy: Mapping[str, pd.DataFrame], place: int, *, policy: Policy | None = None) -> Rival | None:
        """The baseline at this place of greedy_models (2 plays 8B, 3 plays 70B) and its size against the policy's own.

        A size counts the weights that multiply a token; embeddings count only where they also make the logits. None if
        there is no such baseline.
        """
        if place >= len(greedy):
            return None
        name = list(greedy)[place]
        return Rival(name, greedy[name].correct.to_numpy(float), self._times(name, policy or self.policy))

    def _times(self, name: str, policy: Policy) -> float:
        """How many times as many weights the baseline of this name has as a policy; NaN where that is unknown."""
        baseline = next(one for one in self.baselines if one.name == name)
        mine, other = (_weights(one) for one in (policy, baseline))
        return other / mine

    def lines(self, greedy: Mapping[str, pd.DataFrame], *, policy: Policy | None = None) -> pd.DataFrame:
        """The greedy baselines as lines of a figure (tts.plots.accuracy), with labels that say how large they are."""
        points = greedy_points(greedy)
        times = [self._times(name, policy or self.policy) for name in greedy]
        sizes = [f", {x:.{0 if x >= 10 else 1}f} times as large" if x >= 1.05 else "" for x in times]
        return points.assign(label=[f"{name}{size}" for name, size in zip(greedy, sizes, strict=True)])

    def own(self, greedy: Mapping[str, pd.DataFrame]) -> np.ndarray | None:
        """The policy's own greedy accuracy of each problem, (P,); None where it is not among the baselines."""
        same = [one.name for one in self.baselines if one.fingerprint == self.policy.fingerprint]
        return greedy[same[0]].correct.to_numpy(float) if same else None

    @property
    def changed(self) -> dict[str, object]:
        """The parameters that differ from the committed run's, with their values."""
        default = load_profile("default")
        return {
            name: self.parameters[name] for name in default if self.parameters.get(name, default[name]) != default[name]
        }

    def ran(
        self,
        policies: Mapping[str, int] = MappingProxyType({}),
        *,
        problems: int = 0,
        others: bool = False,
        without: Collection[str] = (),
    ) -> str:
        """What was run for a figure, in a sentence: the end of its caption. By default all that the notebook runs.

        policies: the names of those that the figure is of, with the largest N of each. problems: how many. others: name
        other_prms too. without: what the figure has no part of: "verifier", "reduction", "M" or "seeds" (it is of the
        first one alone).
        """
        given, of = self.parameters, dict(policies) or {self.policy.name: self.ns[-1]}
        same = len(set(of.values())) == 1
        names = list(of) if same else [f"{name} (N to {n})" for name, n in of.items()]
        parts = [f"{_listed(names)} on {problems or len(self.problems)} problems of {given['problems']}"]
        parts += [f"N to {n}" for n in of.values()][:1] if same else []
        if self.prm and "verifier" not in without:
            verifiers = [one.name for one in (self.prm, *(self.other_prms if others else ()))]
            words = f"verifier{'s' if len(verifiers) > 1 else ''} {_listed(verifiers)}"
            parts.append(words if "reduction" in without else f"{words} with the reduction {given['reduction']}")
        if "beam_width" in given and "M" not in without:
            parts.append(f"M = {given['beam_width']}")
        if len(self.seeds) > 1 and self.policy.name in of and "seeds" not in without:
            whose = "" if len(of) == 1 else f" of {self.policy.name}"
            parts.append(f"means over {len(self.seeds)} seeds{whose} up to N = {min(self.seeds.values())}")
        drawn = ("seed", "temperature", "top_p", "max_tokens", "depth", "system_prompt")
        changed = self.changed
        parts += [f"{name} = {changed[name]!r}" for name in drawn if name in changed]
        return f"Run: {', '.join(parts)}."

    def save_figure(
        self,
        fig: Figure,
        name: str,
        data: pd.DataFrame | None,
        says: str,
        *,
        about: str | None = None,
        looks: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    ) -> None:
        """tts.plots.saving.save_figure into this run's folder, with what was run in the caption.

        about: what was run for this figure, where it is not all that the notebook runs: self.ran(...), or "" where no
        model was.
        """
        about = ("" if data is None else self.ran()) if about is None else about
        saving.save_figure(fig, name, data, says, folder=self.folder, about=about, looks=looks)
        if not os.environ.get("TTS_FIGURES"):  # in JupyterLab: of its own runs, run_all.sh writes the page at the end
            saving.gallery(self.folder, notebooks=notebooks())

    def show_trees(self, tables: Mapping[str, pd.DataFrame], name: str, says: str, *, n: int) -> None:
        """Draw trees of searches with this N, save the figure, and display it with each step under the pointer.

        tables: title -> tts.plots.trees.node_table(). Where a run has no trees, a sentence says why.
        """
        from IPython.display import display

        from tts.plots import interactive, trees

        if not tables:
            print(self.no_trees)
            return
        figure = trees.draw(tables)
        drawn = pd.concat([table.assign(tree=title) for title, table in tables.items()])
        self.save_figure(figure, name, drawn, says, about=self.ran({self.policy.name: n}, without=["seeds"]))
        display(interactive.view(tables, figure))

    def __repr__(self) -> str:
        """The plain form of _repr_markdown_: without the paths of this machine."""
        return self._repr_markdown_()

    def _repr_markdown_(self) -> str:
        """What this run takes, under a banner where the sentences of the notebook are about another run."""
        given = self.parameters
        models = [f"`{self.policy.name}` to N = {self.ns[-1]}"]
        if self.second_policy:
            models.append(f"`{self.second_policy.name}` to N = {given['second_n_max']}")
        parts = [f"This run takes {len(self.problems)} problems of `{given['problems']}`, {', '.join(models)}"]
        if self.prm:
            parts.append(f"`{self.prm.name}` as the verifier")
        if run := [one.name for one in self.baselines if one.name not in self.published]:
            parts.append(f"greedy decoding of {', '.join(f'`{name}`' for name in run)}")
        about = f"{'; '.join(parts)}. What the store has already is not made again."
        if self.published:
            about += f" Not run here, but a published number ({GREEDY_SOURCE}): " + ", ".join(self.published) + "."
        if self.no_trees:
            about = self._about_replay()
        changed = self.changed
        if not changed:
            return about
        changes = ", ".join(f"`{name} = {value!r}`" for name, value in changed.items())
        return (
            f"> **This is not the committed run**: {changes}. Tables and figures are this run's; the sentences between "
            f"them are about the committed one. Figures go to `figures/{self.folder.name}/`.\n\n{about}"
        )

    @property
    def no_trees(self) -> str:
        """Why there is nothing to show of how a search went, in a sentence; "" where there is."""
        if not isinstance(self.store, ReplayStore):
            return ""
        return "Left out: the published completions have neither the searches' trees nor their token counts."

    def _about_replay(self) -> str:
        policies = [f"`{one.name}`" for one in (self.policy, self.second_policy) if one]
        parts = [
            f"This run replays published completions of {' and '.join(policies)} (`{self.parameters['replay']}`) on "
            f"{len(self.problems)} problems of `{self.parameters['problems']}`: seeds and their N are "
            + ", ".join(f"{seed} to {n}" for seed, n in self.seeds.items())
            + ". Nothing is sampled or scored. It has no trees and, of searches, no token counts."
        ]
        if self.published:
            parts.append(f"Greedy accuracies are those of {GREEDY_SOURCE}: numbers without their own error.")
        return " ".join(parts + [f"Left out: {what}." for what in self.store.said])

    async def samples(self, *, prm: StepScorer | None = None) -> list[pd.DataFrame]:
        """The policy's independent samples, graded and, with a PRM, scored; one table a seed. Closes both."""
        tables = await experiment.samples_of(
            self.problems, self.policy, prm, self.store, seeds=self.seeds, **self.drawing
        )
        for model in filter(None, (self.policy, prm)):
            await model.close()
        return tables

    async def greedy(self) -> dict[str, pd.DataFrame]:
        """Graded greedy solutions of the baselines by name, one row a problem.

        Only an accuracy is known of those that are not run: each problem counts as right with that chance.
        """
        run = [one for one in self.baselines if one.name not in self.published]
        made = await experiment.greedy_baselines(self.problems, run, self.store, **self.drawing)
        one = {"problem": [problem.id for problem in self.problems], "tokens": np.nan, "outcome": None}
        made |= {name: pd.DataFrame(one | {"correct": accuracy}) for name, accuracy in self.published.items()}
        return {one.name: made[one.name] for one in self.baselines}

    async def samples_of_baselines(self, n: int) -> dict[str, pd.DataFrame]:
        """n scored samples a problem, of one seed, of each baseline that is no policy of this notebook: by its name.

        Baselines that are not run are left out. Each is closed before the verifier reads its samples.
        """
        tables = {}
        policies = {one.fingerprint for one in (self.policy, self.second_policy) if one}
        seeds = {self.sampling.seed: n}
        for policy in self.baselines:
            if policy.fingerprint not in policies and policy.name not in self.published:
                await experiment.samples_of(self.problems, policy, None, self.store, seeds=seeds, **self.drawing)
                await policy.close()
                [tables[policy.name]] = await experiment.samples_of(
                    self.problems, policy, self.prm, self.store, seeds=seeds, **self.drawing
                )
        await self.prm.close()
        return tables

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

        settings: those of the strategies, such as beam_width. A replay takes the seeds and budgets that are published.
        """
        policy, prm, seeds = policy or self.policy, prm or self.prm, seeds or self.seeds
        aside, without = self.parameters.get("n_difficulty", 0), ()
        if isinstance(self.store, ReplayStore):
            seeds = self.store.plan_samples(policy, seeds, aside=aside)
            every = powers_of_four(max(seeds.values()))
            without = set(every) - set(self.published_budgets(every, seeds, policy=policy))
        return await experiment.sweep(
            problems or self.problems,
            policy,
            prm,
            self.store,
            seeds=seeds,
            n_difficulty=aside,
            strategies=[self.bind(strategy, **settings) for strategy in strategies],
            reduction=self.parameters["reduction"],
            keep_trees=keep_trees,
            search_n_max=search_n_max,
            without=without,
            **self.drawing,
        )

    def published_budgets(
        self, budgets: Sequence[int], seeds: Mapping[int, int], *, policy: Policy | None = None
    ) -> list[int]:
        """The budgets at which a policy's beam search and DVTS are published for at least one of the seeds."""
        policy, bound = policy or self.policy, [self.bind(strategy) for strategy in (beam_search, dvts)]
        kept = []
        for n in budgets:
            drawn = [replace(self.sampling, seed=seed) for seed, n_max in seeds.items() if n <= n_max]
            keys = [settings_of_search(one, policy, self.prm, n=n, sampling=how) for one in bound for how in drawn]
            if self.store.has_searches(policy, keys):
                kept.append(n)
        return kept

    @property
    def compared(self) -> dict[str, object]:
        """The arguments of sweep() for what verifiers are compared on: some problems, the first seed, a smaller N."""
        given = self.parameters
        return {
            "problems": self.problems[: given["verifier_problems"]],
            "seeds": dict([next(iter(self.seeds.items()))]),
            "search_n_max": given.get("verifier_n_max") or given["beyond_n_max"],
        }

    async def looking_ahead(self, k: int) -> Sweep:
        """Beam search on some problems with the first seed, its trees kept; a step is ranked k greedy steps later.

        The searches go as far as those of other verifiers, those without lookahead as far as the samples.
        """
        return await self.sweep(
            problems=self.problems[: self.parameters["lookahead_problems"]],
            seeds=self.compared["seeds"],
            strategies=(beam_search,),
            settings={"lookahead": k},
            search_n_max=self.compared["search_n_max"] if k else 0,
            keep_trees=True,
        )

    async def by_verifier(self) -> dict[str, Sweep]:
        """sweep() of what is compared with each verifier, prm and other_prms, by the verifier's name."""
        return {prm.name: await self.sweep(prm=prm, **self.compared) for prm in (self.prm, *self.other_prms)}


def set_up(
    parameters: Mapping[str, object],
    *,
    open_policy: Callable[..., Policy] = open_policy,
    open_prm: Callable[..., StepScorer] = open_prm,
    load_problems: Callable[..., list[Problem]] = load_problems,
    gpus: Sequence[Gpu] | None = None,
) -> Setup:
    """Check a notebook's variables (its `globals()`), find what they name and use the project's style for figures.

    A profile's settings of the machine (tts.companion.parameters.MACHINE) are among the variables. To look at a run
    without its models, replace the functions that open models and problems, and name the gpus to plan for.
    Raises InputError, one line, for what is wrong with them, before a model is loaded.
    """
    warnings.filterwarnings("ignore", "IProgress not found")  # tqdm asks for a widget that no saved notebook could show
    check_parameters(parameters)
    known = load_profile("default") | MACHINE
    given = MACHINE | {name: parameters[name] for name in known if name in parameters}
    check_ranges(given)
    sampling = Sampling(given["temperature"], given["top_p"], given["max_tokens"], given["seed"])
    n_max = given.get("n_max") or powers_of_four(given["beyond_n_max"])[-1]
    seeds = seeds_to(
        n_max, seed=given["seed"], n_seeds=given.get("n_seeds", 1), seeds_n_max=given.get("seeds_n_max", n_max)
    )
    budgets = powers_of_four(n_max) if "depth" in given else []
    problems = load_problems(given["problems"], n=given["n_problems"])
    least = 10 if {"probe", "first_look", "second_model"} & set(given) else 5 if "n_difficulty" in given else 1
    if len(problems) < least:
        raise InputError(f"n_problems: {len(problems)} problems are too few for quintiles here: give at least {least}")
    if given.get("second_model") == given["policy_model"]:
        raise InputError(f"second_model is {given['second_model']}: give another policy than policy_model")
    names = names_of(given.get("greedy_models", ""))
    opened = (
        _published(given, problems, names)
        if given.get("replay")
        else _opened(given, problems, names, open_policy=open_policy, open_prm=open_prm, gpus=gpus)
    )
    found = Setup(
        parameters=given,
        folder=figures_folder(parameters),
        problems=problems,
        sampling=sampling,
        seeds=seeds,
        ns=powers_of_two(n_max),
        budgets=budgets,
        **opened,
    )
    if isinstance(found.store, ReplayStore):
        found.seeds = found.store.plan_samples(found.policy, seeds, aside=given.get("n_difficulty", 0))
        found.budgets = budgets = found.published_budgets(budgets, found.seeds)
        if "depth" in given and not budgets:
            raise InputError(
                f"replay: {found.policy.name} has no searches with these settings: check beam_width, depth"
            )
    if "probe" in given and not given["probe"] < budgets[0]:
        raise InputError(f"probe is {given['probe']}: it must be below the smallest budget, {budgets[0]}")
    answers.remember(KeptKeys(found.store))
    style()
    return found


def _opened(
    given: Mapping[str, object],
    problems: Sequence[Problem],
    names: Sequence[str],
    *,
    open_policy: Callable[..., Policy],
    open_prm: Callable[..., StepScorer],
    gpus: Sequence[Gpu] | None,
) -> dict[str, object]:
    """The store and the models of a run; names: of the baselines.

    A baseline that fits on no GPU has its published number, if there is one, or else is left out.
    """
    places = plan_engines(given, gpus)
    policies = [given["policy_model"], given.get("second_model")]
    limits = {"max_in_flight": given["max_in_flight"], "patience": given["patience"]}

    def policy(name: str, parameter: str, *, engine: str) -> Policy:
        served = given["policy_server"] if name in policies else ""
        settings = {"engine": "auto" if served and parameter == "greedy_models" else engine, "server": served}
        settings |= limits | places.arguments(name)
        return open_policy(name, parameter=parameter, system_prompt=given.get("system_prompt", ""), **settings)

    def prm(name: str, parameter: str) -> StepScorer:
        settings = {"engine": given["prm_engine"], "server": given["prm_server"] if parameter == "prm_model" else ""}
        return open_prm(name, parameter=parameter, problems=problems, **settings, **limits, **places.arguments(name))

    known = {name: accuracy_of(name, given["problems"]) for name in places.skipped}
    known = {name: found for name, found in known.items() if found}
    others = prms_of(given["prm_model"], given["other_prms"])[1:] if "other_prms" in given else []
    second = given.get("second_model")
    return {
        "store": Store(store_folder(given["store"])),
        "policy": policy(given["policy_model"], "policy_model", engine=given["engine"]),
        "second_policy": policy(second, "second_model", engine=given["engine"]) if second else None,
        "prm": prm(given["prm_model"], "prm_model") if "prm_model" in given else None,
        "other_prms": [prm(name, "other_prms") for name in others],
        "baselines": [
            known[name][0] if name in known else policy(name, "greedy_models", engine=given["greedy_engine"])
            for name in names
            if name in known or name not in places.skipped
        ],
        "published": {named.name: accuracy for named, accuracy in known.values()},
    }


def accuracy_of(model: str, problems: str) -> tuple[Policy, float] | None:
    """The published greedy accuracy of a model on these problems, with a policy that names its source; None if none.

    The numbers are MATH-500's, so they stand beside no other problems.
    """
    if short_name(problems) != "MATH-500" or short_name(model) not in GREEDY:
        return None
    return greedy_baseline(model)


def _published(given: Mapping[str, object], problems: Sequence[Problem], names: Sequence[str]) -> dict[str, object]:
    """The same for a replay: nothing can be sampled, and the baselines have a published accuracy."""
    if given.get("other_prms"):
        raise InputError(
            f'other_prms is "{given["other_prms"]}": of published completions only one verifier is known, give ""'
        )
    benchmark = load_problems(given["problems"])
    baselines = [greedy_baseline(name) for name in names]
    return {
        "store": ReplayStore(store_folder(given["store"]), given["replay"], problems, benchmark=benchmark),
        "policy": published_policy(given["policy_model"]),
        "second_policy": published_policy(given["second_model"]) if given.get("second_model") else None,
        "prm": PublishedScorer(short_name(given["prm_model"])) if "prm_model" in given else None,
        "other_prms": [],
        "baselines": [policy for policy, _ in baselines],
        "published": {policy.name: accuracy for policy, accuracy in baselines},
    }


def _listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _weights(model: Policy) -> float:
    """The weights that multiply a token, or all parameters where a model card alone is known; NaN where nothing is."""
    size = size_of(model)
    return float(size.weights + size.head) if size else getattr(model, "parameters", float("nan"))
