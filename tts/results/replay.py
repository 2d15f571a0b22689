"""A store that answers from the published completions (published.py): what was not published is never made.

The same calls that fill an ordinary store (tts.results.collect, tts.experiment) read this one. Policies and verifiers
are names without a model. What the data sets do not have is not known here either: searches have no trees, no tokens
and no reason for their end; independent samples have no log-probabilities and, of some, no tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from tts.errors import InputError
from tts.policy import Completion, Sampling
from tts.problems import Problem
from tts.results.published import (
    GREEDY,
    GREEDY_SOURCE,
    METHODS,
    Config,
    NotPublishedError,
    check,
    find_configs,
    finished,
    shares_parent,
    short_name,
    solved_rows,
    steps_and_scores,
)
from tts.results.store import Key, Record, Store, Table
from tts.tree import Search, Solution, split_steps

TREES = 0.95  # share of groups of M completions that must be the children of one step to count as trees


@dataclass(frozen=True)
class _KnownByName:
    """What a policy and a verifier have of which the name alone is known."""

    name: str  # with a source in brackets, where there is one
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The name, without its source, since no weights are known."""
        return f"published:{self.name.partition(' (')[0]}"

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True)
class PublishedPolicy(_KnownByName):
    """A policy that is known by its name alone, such as one whose completions were published. It samples nothing."""

    parameters: float = float("nan")  # by its model card
    context = 0
    prompt_settings: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, problem: str) -> tuple[int, ...]:
        """No tokens: it has no tokenizer."""
        return ()

    async def sample(self, prefix: Sequence[int], sampling: Sampling, *, stop: str | None = None) -> Completion:
        """Raises NotPublishedError, always."""
        raise NotPublishedError(f"replay: {self.name} can't be sampled: only what was published is there")


class PublishedScorer(_KnownByName):
    """A verifier that is known by its name alone, such as one whose scores were published. It scores nothing."""

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """Raises NotPublishedError, always."""
        raise NotPublishedError(f"replay: {self.name} can't score: only what was published is there")


def published_policy(model: str) -> PublishedPolicy:
    """The policy of this name, such as meta-llama/Llama-3.2-1B-Instruct."""
    name = short_name(model)
    return PublishedPolicy(name, parameters=GREEDY.get(name, (0.0, float("nan")))[1])


def greedy_baseline(model: str) -> tuple[PublishedPolicy, float]:
    """A policy whose greedy accuracy is known, named with the source of that number, and the accuracy in [0, 1]."""
    name = short_name(model)
    if name not in GREEDY:
        raise InputError(f"greedy_models: no greedy accuracy of {name} is known: choose from {', '.join(GREEDY)}")
    accuracy, parameters = GREEDY[name]
    return PublishedPolicy(f"{name} ({GREEDY_SOURCE})", parameters=parameters), accuracy


@dataclass(frozen=True)
class Part:
    """Completions first ... last - 1 of each problem in a config, which are samples number `index` and on."""

    config: Config
    first: int
    last: int
    index: int


class ReplayStore(Store):
    """The published completions as a store; folder gets only what can be made again at any time, the answers' keys.

    source: a folder, or the hub's owner of the data sets (published.py). problems: those of the run.
    """

    def __init__(
        self, folder: str | Path, source: str, problems: Sequence[Problem], *, benchmark: Sequence[Problem] = ()
    ):
        """benchmark: all problems of the data, of which the run may take some; rows of others are said."""
        super().__init__(folder)
        self.source = source
        self.problems = {problem.id: problem for problem in problems}
        self.benchmark = {problem.id: problem for problem in benchmark or problems}
        self.said: dict[str, None] = {}  # what this run goes without, in order
        self.configs, self._is_whole = cache(self.configs), cache(self._is_whole)  # found and checked once
        self._samples: dict[tuple[str, int], list[Part]] = {}  # (policy's fingerprint, seed) -> as plan_samples() chose

    def configs(self, policy: str, method: str) -> list[Config]:
        """The published runs of a policy with a method, by N and seed."""
        return find_configs(self.source, policy, method)

    def say(self, what: object) -> None:
        """Tell once what this run goes without."""
        line = str(what).removeprefix("replay: ")
        if line not in self.said:
            self.said[line] = None
            print(f"replay: {line}", file=sys.stderr)

    # --- Independent samples ---

    def plan_samples(self, policy: PublishedPolicy, seeds: Mapping[int, int], *, aside: int = 0) -> dict[int, int]:
        """The seeds, of those asked for, that are there: seed -> the largest N that it goes to, the longest first.

        aside: so many more samples of the first seed, which nothing grades (tts.experiment.sweep). They are the later
        completions of a longer config (n-1024) or, where there is none, those of the last seed, which is then left out.
        What is missing or broken is said on stderr. Raises InputError where no seed goes to the largest N.
        """
        n_max = max(seeds.values())
        whole = [config for config in self.configs(policy.name, "best_of_n") if self._is_whole(config)]
        of_seed = {seed: [one for one in whole if one.seed == seed] for seed in seeds}
        chosen: dict[int, Config] = {}
        for seed, configs in of_seed.items():
            if configs:  # the shortest that is long enough
                chosen[seed] = next((one for one in configs if one.n >= seeds[seed]), configs[-1])
            else:
                self.say(f"{policy.name} has no best-of-N completions of seed {seed}: that seed is left out")
        found = {seed: min(seeds[seed], config.n) for seed, config in chosen.items()}
        if n_max not in found.values():
            known = f"they go to {max(found.values())}" if found else f"there are none in {self.source}"
            raise InputError(
                f"n_max is {n_max}, but of the best-of-N completions of {policy.name} {known}: choose others"
            )
        first = next(seed for seed, n in found.items() if n == n_max)
        parts = {seed: [Part(chosen[seed], 0, n, 0)] for seed, n in found.items()}
        if aside:
            longer = [one for one in [chosen[first], *whole] if one.n >= n_max + aside]
            others = [one for one in whole if one.seed != first and one.n >= aside and one not in longer]
            if longer:
                extra = Part(longer[0], n_max, n_max + aside, n_max)
            elif others:
                extra = Part(others[-1], 0, aside, n_max)
                if found.pop(extra.config.seed, None):
                    self.say(
                        f"{policy.name}: the samples of seed {extra.config.seed} tell the difficulty and are graded "
                        "nowhere, because no config is longer than N"
                    )
            else:
                raise InputError(
                    f"n_difficulty is {aside}, but {policy.name} has no so many samples beside those that are graded: "
                    "lower n_difficulty or n_max"
                )
            parts[first].append(extra)
        self._samples |= {(policy.fingerprint, seed): parts[seed] for seed in found}
        return {first: n_max} | {seed: n for seed, n in found.items() if seed != first}

    # --- Searches ---

    def search_config(self, policy: str, settings: Mapping[str, object]) -> Config:
        """The config that holds a search with these settings (tts.results.collect): of DVTS any that has its trees.

        Raises NotPublishedError where there is none.
        """
        method, n, seed = settings["strategy"], settings["n"], settings["seed"]
        what = f"{policy} has no {METHODS.get(method, method)} completions"
        fits = [one for one in self.configs(policy, method) if _fits(one, settings)] if method in METHODS else []
        exact = [one for one in fits if one.n == n]
        larger = [one for one in fits if one.n > n and method == "dvts" and n % one.width == 0]
        if not exact + larger:
            more = ", ".join(
                f"{name} = {settings[name]}" for name in ("lookahead", "drop_duplicates") if name in settings
            )
            raise NotPublishedError(
                f"{what} of seed {seed} at N = {n}, M = {settings.get('width')}" + f", {more}" * bool(more)
            )
        return (exact + larger)[0]

    def has_searches(self, policy: PublishedPolicy, searches: Sequence[Mapping[str, object]]) -> bool:
        """Whether each strategy has a config for one of its searches at least (tts.results.collect.settings_of_search).

        What no seed has is reported: strategies are compared, so a budget that one lacks is left out for all.
        """
        lacking: dict[object, str] = {}
        for settings in searches:
            try:
                self.search_config(policy.name, settings)
                lacking[settings["strategy"]] = ""
            except NotPublishedError as error:
                lacking.setdefault(settings["strategy"], f"{error}, nor of another seed: this N is left out")
        for why in filter(None, lacking.values()):
            self.say(why)
        return not any(lacking.values())

    # --- The store ---

    def table(self, kind: str, settings: Mapping[str, object]) -> Table:
        """A table whose records are read from the published rows; raises NotPublishedError where there are none."""
        if kind not in ("samples", "scores", "searches"):
            return super().table(kind, settings)
        policy = str(settings.get("policy", "")).removeprefix("published:")
        if kind == "searches":
            return PublishedTable(self, [Part(self.search_config(policy, settings), 0, settings["n"], 0)], settings)
        parts = self._samples.get((settings.get("policy"), settings.get("seed")), [])
        if kind == "scores" or not parts or not all(_fits(part.config, settings) for part in parts):
            how = ", ".join(f"{name} = {value}" for name, value in settings.items())
            raise NotPublishedError(f"{policy or 'a verifier'} has no published {kind} with {how}")
        return PublishedTable(self, parts, settings)

    def _is_whole(self, config: Config) -> bool:
        try:
            strangers = check(config, self.problems, self.benchmark)
        except NotPublishedError as error:
            self.say(f"{error}; it is left out")
            return False
        if strangers:
            self.say(f"{config}: {strangers} rows are of problems that `problems` does not have; they are left out")
        return True


def _fits(config: Config, settings: Mapping[str, object]) -> bool:
    """Whether a config was made with these settings."""
    wanted = {name: settings[name] for name in ("temperature", "top_p", "max_tokens") if name in settings}
    if config.width:
        del wanted["max_tokens"]  # of a search its name does not say
        wanted |= {name: settings[name] for name in ("width", "depth", "seed")} | {
            "lookahead": settings.get("lookahead", 0)
        }
    same = all(getattr(config, name) == value for name, value in wanted.items())
    return same and not settings.get("drop_duplicates")


class PublishedTable(Table):
    """Records that are read anew from the published rows each time: nothing is copied, and nothing is appended."""

    read_only = "only what was published is there"

    def __init__(self, store: ReplayStore, parts: Sequence[Part], settings: Mapping[str, object]):
        super().__init__(store, Path(parts[0].config.dataset) / parts[0].config.name, dict(settings))
        self.parts = parts

    @cached_property
    def made_by(self) -> dict[str, str]:
        """Where the records come from."""
        config = self.parts[0].config
        return {"published": Path(config.dataset).name, "revision": config.revision}

    def read(self) -> dict[Key, Record]:
        """All records by key: samples with their scores, or searches without trees."""
        if "strategy" in self.settings:
            return self._searches(self.parts[0].config)
        records = {}
        for part in self.parts:
            records |= self._samples(part)
        return dict(sorted(records.items()))

    def append(self, records: Sequence[Record]) -> None:
        """Raises NotPublishedError, always."""
        raise NotPublishedError(f"replay: {self.folder} is not written to")

    def _samples(self, part: Part) -> dict[Key, Record]:
        records, misfits = {}, 0
        for problem, row in solved_rows(part.config, self.store.problems):
            tokens = row.get("completion_tokens") or [None] * part.config.n
            ended = row.get("finished") or [not (count or 0) >= part.config.max_tokens for count in tokens]
            for i in range(part.first, part.last):
                text, found = row["completions"][i], steps_and_scores(row["completions"][i], row["scores"][i])
                misfits += found is None
                length = tokens[i] if tokens[i] and tokens[i] > 0 else float("nan")
                records[problem.hash, part.index + i - part.first] = {
                    "problem": problem.id,
                    "text": text,
                    "tokens": length,
                    "prompt_tokens": 0,  # not published; only FLOPs need it, which are not known either
                    "finish": "end" if ended[i] else "length",
                    "scores": found[1] if found else [],
                    "unscored": "" if found else "scores of another number than steps",
                    "made_by": self.made_by,
                }
        self._report(part.config, misfits, len(records))
        return records

    def _searches(self, config: Config) -> dict[Key, Record]:
        records, misfits, total, trees = {}, 0, 0, []
        width, n = config.width, self.settings["n"]
        for problem, row in solved_rows(config, self.store.problems):
            texts = row["completions"][:n]
            if config.method == "dvts":
                trees += [shares_parent(texts[i : i + width]) for i in range(0, len(texts), width)]
            solutions = []
            for i, (text, scores, ended) in enumerate(zip(texts, row["scores"], finished(row))):
                if ended:
                    found = steps_and_scores(text, scores, depth=config.depth)
                    steps, fitting = found or (split_steps(text), [])
                    misfits += found is None
                    path = divmod(i, width) if config.method == "dvts" else (0, i)
                    solutions.append(Solution(text, steps, fitting, 0, 0.0, "end", path))
            total += len(texts)
            search = Search(config.method, problem.id, n, solutions, [])
            records[(problem.hash,)] = {"problem": problem.id, "search": search.to_dict(), "made_by": self.made_by}
        if n < config.n and sum(trees) < TREES * len(trees):
            raise NotPublishedError(
                f"{config}: only {sum(trees)} of {len(trees)} groups of {width} completions are children of one step: "
                f"they are no trees, and N = {n} can't be taken from them"
            )
        self._report(config, misfits, total)
        return records

    def _report(self, config: Config, misfits: int, total: int) -> None:
        if misfits:
            self.store.say(
                f"{config}: {misfits:,} of {total:,} completions have scores that fit no step: they count as unscored"
            )
