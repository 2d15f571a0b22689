"""What a run would make and how long that takes, before it makes anything: ./run_all.sh --estimate.

1. What is missing: each notebook's collecting calls, listed in COLLECTS, run on a store that only notes what it lacks
   (tts.results.collect.DryStore), so keys and counts are those of the run.
2. What one solution costs: a little of each kind of work is really done, with the run's own problems, policies and
   verifiers, by the very functions that would do it; the results are thrown away.
3. The table: counts times costs.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import log2
from pathlib import Path

import pandas as pd

from tts import experiment
from tts.analysis.cost import measured
from tts.analysis.grading import by_problem
from tts.companion.parameters import lookaheads_of, widths_of
from tts.companion.plan import Job
from tts.companion.setup import Setup, set_up
from tts.results import collect
from tts.results.collect import DryStore, Gap
from tts.results.store import Record, settings_hash
from tts.strategies import beam_search, dvts
from tts.tree import together

ENOUGH = 1.0  # seconds: what took so long was measured well enough
MOST = 64  # problems at once in a measurement
SOLUTIONS = 16  # independent ones a problem, at most: lengths differ most between problems, so more of them count
MEASURED_N = 16  # searches are measured at the N nearest to it; a solution is taken to cost the same at any N


# --- What each notebook collects (a test holds this list and the notebooks together) ------------------------------


async def _majority_voting(setup: Setup) -> None:
    await setup.greedy()
    await setup.samples()


async def _scoring_steps(setup: Setup) -> None:
    await setup.samples(prm=setup.prm)


async def _best_of_n(setup: Setup) -> None:
    first, *_ = await setup.samples(prm=setup.prm)
    await setup.greedy()
    for prm in setup.other_prms:
        await collect.score(setup.problems, first, prm, setup.store)


async def _beam_search(setup: Setup) -> None:
    await setup.greedy()
    await setup.sweep(strategies=(beam_search,))
    await setup.by_verifier()
    other = {"drop_duplicates": not setup.parameters["drop_duplicates"]}
    await setup.sweep(strategies=(beam_search,), settings=other, **setup.compared)


async def _difficulty(setup: Setup) -> None:
    await setup.sweep(strategies=(beam_search,))


async def _dvts(setup: Setup) -> None:
    await setup.greedy()
    await setup.sweep()


async def _compute_optimal(setup: Setup) -> None:
    given = setup.parameters
    await setup.sweep()
    others = widths_of(given["beam_width"], given["other_widths"])[1:]
    for strategy, m, n in product((beam_search, dvts), others, setup.budgets):
        if m <= n <= given["seeds_n_max"]:
            bound, models = setup.bind(strategy, beam_width=m), (setup.policy, setup.prm)
            await collect.search(setup.problems, bound, *models, setup.store, n=n, **setup.drawing)


async def _larger_models(setup: Setup) -> None:
    given = setup.parameters
    await setup.sweep()
    await setup.sweep(policy=setup.second_policy, seeds={given["seed"]: given["second_n_max"]})
    await setup.greedy()
    await setup.samples_of_baselines(min(given["n_max"], given["second_n_max"], 8))


async def _beyond_the_writeup(setup: Setup) -> None:
    """All but section 5: the heads that it trains are not there yet."""
    given = setup.parameters
    await setup.by_verifier()
    [first] = await setup.samples(prm=setup.prm)
    await setup.sweep(search_n_max=given["beyond_n_max"])
    few = first[first["index"] < min(given["beyond_n_max"], given["n_max"])]
    for prm in setup.other_prms:
        await collect.score(setup.problems, few, prm, setup.store)
    for k in lookaheads_of(given["lookaheads"]):
        await setup.looking_ahead(k)


async def _self_training(setup: Setup) -> None:
    """What the first policy draws: those that are trained from it are not there yet."""
    await experiment.greedy_baselines(setup.problems, [setup.policy], setup.store, **setup.drawing)
    await setup.samples()
    n, some = setup.budgets[-1], setup.compared["problems"]
    await collect.search(some, setup.bind(dvts), setup.policy, setup.prm, setup.store, n=n, **setup.drawing)


COLLECTS: dict[str, Callable[[Setup], Awaitable[None]]] = {
    "01_majority_voting": _majority_voting,
    "02_scoring_steps": _scoring_steps,
    "03_best_of_n": _best_of_n,
    "04_beam_search": _beam_search,
    "05_difficulty": _difficulty,
    "06_dvts": _dvts,
    "07_compute_optimal": _compute_optimal,
    "08_larger_models": _larger_models,
    "09_beyond_the_writeup": _beyond_the_writeup,
    "10_self_training": _self_training,
}


# What a notebook trains, and so nobody knows beforehand what is drawn with it.
TRAINED = {
    "09_beyond_the_writeup": "section 5, which trains verifier heads",
    "10_self_training": "its rounds of training, and what the trained policies draw",
}


# --- The table: counts and costs in, text out ---------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What one solution costs: a sample, a scored solution, or one of the N of a search."""

    decoded: float  # tokens
    scored: float
    seconds: float
    bytes: float  # in the store


@dataclass(frozen=True)
class Part:
    """Some records of one kind that a notebook would make."""

    notebook: str
    what: str
    records: float
    n: int = 1  # solutions in a record
    exact: bool = True  # the number of records is known; else how many solutions are equal is extrapolated
    cost: Cost = Cost(0, 0, 0, 0)


def table(parts: Sequence[Part], notebooks: Sequence[str], notes: Sequence[str] = ()) -> str:
    """A row for what each notebook makes, and the sum. What an earlier notebook makes is not counted again."""
    rows = [("notebook", "would make", "records", "decoded", "scored", "minutes", "MB")]
    for notebook in notebooks:
        of_it = [part for part in parts if part.notebook == notebook]
        for what in dict.fromkeys(part.what for part in of_it):
            rows.append((notebook, what, *_numbers([part for part in of_it if part.what == what])))
        if notebook in TRAINED:
            rows.append((notebook, f"not counted: {TRAINED[notebook]}", *[""] * 5))
        elif not of_it:
            why = "nothing, all is there" if notebook in COLLECTS else "what this table doesn't know"
            rows.append((notebook, why, *[""] * 5))
    rows.append(("all", "", *_numbers(parts)))
    shown = [(name if name != rows[i - 1][0] else "", *rest) for i, (name, *rest) in enumerate(rows)]
    return "\n".join([*in_columns(shown), *notes])


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines: two columns of words and then numbers."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    form = "  ".join(f"{{:{'<' if i < 2 else '>'}{width}}}" for i, width in enumerate(widths))
    return [form.format(*row).rstrip() for row in rows]


def _numbers(parts: Iterable[Part]) -> tuple[str, ...]:
    parts = list(parts)
    about = "" if all(part.exact for part in parts) else "~"

    def total(name: str) -> float:
        return sum(part.records * part.n * getattr(part.cost, name) for part in parts)

    tokens = (short_count(total(name)) for name in ("decoded", "scored"))
    minutes, megabytes = total("seconds") / 60, total("bytes") / 1e6
    return f"{about}{sum(part.records for part in parts):,.0f}", *tokens, f"{minutes:,.1f}", f"{megabytes:,.1f}"


def short_count(count: float) -> str:
    """Tokens, such as "12 k" or "1.5 M"; "-" for none."""
    if count >= 1e6:
        return f"{count / 1e6:,.1f} M"
    return f"{count / 1e3:,.0f} k" if count >= 1e3 else f"{count:,.0f}" if count else "-"


# --- What is missing, and what it costs ---------------------------------------------------------------------------


def estimate(jobs: Sequence[Job]) -> str:
    """The table for these notebooks. Starts the engines if something is missing; writes nothing to the store."""
    return asyncio.run(_estimate(jobs))


async def _estimate(jobs: Sequence[Job]) -> str:
    lacks = await missing(jobs)
    costs, shares, notes = await measure(lacks)
    parts = []
    for lack in lacks:
        records = lack.records - sum(lack.unsampled.values())
        records += sum(count * shares[name] for name, count in lack.unsampled.items())
        n = int(lack.gap.table.settings.get("n", 1))
        parts.append(Part(lack.notebook, lack.what, records, n, exact=not lack.unsampled, cost=costs[lack.kind]))
    return table(parts, [job.name for job in jobs], notes)


@dataclass(frozen=True)
class Lack:
    """A gap in the store that a notebook would fill."""

    notebook: str
    gap: Gap
    unsampled: Mapping[str, int]  # of its records, scores of samples that are not made yet, by the samples' table

    @property
    def records(self) -> int:
        """How many there are, all solutions being different."""
        return sum(map(len, self.gap.missing.values()))

    @property
    def kind(self) -> str:
        """The same for what costs the same a solution: equal models and settings, whatever N and seed."""
        settings = {name: value for name, value in self.gap.table.settings.items() if name not in ("n", "seed")}
        return f"{self.gap.table.folder.parent.name}/{settings_hash(settings)}"

    @property
    def what(self) -> str:
        """It in words."""
        settings, policy = self.gap.table.settings, self.gap.policy
        if "strategy" in settings:
            copies = " without copies" if settings.get("drop_duplicates") else ""
            ahead = f" looking {settings['lookahead']} ahead" if settings.get("lookahead") else ""
            work = f"{settings['strategy']}{copies}{ahead} with {self.gap.prm.name}"
            return f"{policy.name}: {work}, N = {settings['n']}, M = {settings['width']}"
        if policy is None:
            return f"{self.gap.prm.name}: scored solutions"
        return f"{policy.name}: {'samples' if settings['temperature'] else 'greedy solutions'}"


async def missing(jobs: Sequence[Job], *, look: Callable[[Mapping], Setup] = set_up) -> list[Lack]:
    """What each notebook would make, in their order and in that of the notebooks' calls. look: see set_up."""
    stores: dict[Path, DryStore] = {}
    found = []
    for job in jobs:
        if job.name in COLLECTS and not job.parameters.get("replay"):  # a replay makes nothing
            setup = look(job.parameters)
            setup.store = store = stores.setdefault(job.store, DryStore(job.store))
            before = len(store.gaps)
            await COLLECTS[job.name](setup)
            for gap in store.gaps[before:]:
                keys = (key for keys in gap.missing.values() for key in keys)
                unsampled = Counter(store.unsampled[key[-1]] for key in keys if key[-1] in store.unsampled)
                found.append(Lack(job.name, gap, unsampled))
    return found


async def measure(lacks: Sequence[Lack]) -> tuple[dict[str, Cost], dict[str, float], list[str]]:
    """The cost of each kind of work; of each table of samples the share of different texts; notes on what was measured.

    Measured in the order of a run; a policy is closed as soon as no other measurement needs it.
    """
    costs, shares, notes, texts = {}, {}, [], {}
    by_kind = {kind: [one for one in lacks if one.kind == kind] for kind in dict.fromkeys(one.kind for one in lacks)}
    chosen = [min(of_kind, key=_from_measured_n) for of_kind in by_kind.values()]
    for done, lack in enumerate(chosen, start=1):
        print(f"run_all: measuring {lack.what} ({done} of {len(chosen)})", file=sys.stderr)
        gap = await _of_texts(lack.gap, texts) if lack.unsampled else lack.gap
        costs[lack.kind], note, records = await _measure(gap)
        notes.append(f"  {lack.what}: {note}")
        if lack.kind.startswith("samples/"):
            texts = pd.DataFrame(records, columns=["problem", "text"])
            drawn = list(by_problem(texts, texts.text).values())
            for one in by_kind[lack.kind]:
                n = one.records / len(one.gap.missing)
                shares[one.gap.table.folder.name] = different(drawn, n) / n
        if gap.policy and gap.policy.fingerprint not in {
            later.gap.policy.fingerprint for later in chosen[done:] if later.gap.policy
        }:
            await gap.policy.close()
    for lack in chosen:
        if lack.gap.prm:
            await lack.gap.prm.close()
    if notes:
        notes = [
            "",
            "Measured just now, with results that were thrown away:",
            *notes,
            "All else is extrapolated from these, in proportion to records times N; ~ is a guess at how many solutions",
            "are equal. Starting the engines, and what the notebooks compute and draw, come on top.",
        ]
    return costs, shares, notes


def _from_measured_n(lack: Lack) -> float:
    return abs(log2(lack.gap.table.settings.get("n", MEASURED_N) / MEASURED_N))


async def _of_texts(gap: Gap, samples: pd.DataFrame) -> Gap:
    """The gap of scores that these samples would leave in an empty store."""
    problems = [problem for problem in gap.missing if problem.id in set(samples.problem)]
    with tempfile.TemporaryDirectory() as empty:
        store = DryStore(empty)
        await collect.score(problems, samples, gap.prm, store)
    return store.gaps[0]


async def _measure(gap: Gap) -> tuple[Cost, str, list[Record]]:
    """Make a little of what is missing: twice as many problems each time, until they take long enough.

    The last time is the one that counts for the speed; tokens and bytes are means over all of them.
    """
    first, *rest = random.Random(0).sample(list(gap.missing), len(gap.missing))
    await gap.make(first, gap.missing[first][:1])  # the engines start
    rest, count, records, before = rest or [first], 1, [], measured(gap.policy, gap.prm)
    while True:
        batch, rest = rest[:count], rest[count:]
        began = time.perf_counter()
        made = await together(gap.make(problem, gap.missing[problem][:SOLUTIONS]) for problem in batch)
        seconds = time.perf_counter() - began
        records += (last := [record for of_problem in made for record in of_problem])
        count *= 2
        if seconds >= ENOUGH or count > min(MOST, len(rest)):
            break
    n = int(gap.table.settings.get("n", 1))
    spent = measured(gap.policy, gap.prm) - before
    size = sum(len(json.dumps(record, ensure_ascii=False).encode()) + 1 for record in records)
    of_one = [total / (n * len(records)) for total in (spent.decoded, spent.scored, size)]
    cost = Cost(of_one[0], of_one[1], seconds / (n * len(last)), of_one[2])
    tokens = [f"{value:.0f} tokens {name}" for name, value in zip(("decoded", "scored"), of_one) if value]
    problems = len({record["problem"] for record in records})
    note = f"{n * len(records):,} solutions of {problems} problems, {' and '.join(tokens) or 'no tokens'} each; "
    return cost, note + f"{1 / cost.seconds:,.0f} a second", records


def different(drawn: Sequence[Sequence[str]], n: float) -> float:
    """How many different texts n samples of a problem have, from k samples of each: they grow as a power of n.

    The power is the one between k / 2 and k samples (Heaps' law); on the embedded problems it is right within 10 %.
    """
    k = min(map(len, drawn))
    if k < 2:
        return n
    half, whole = (sum(len(set(texts[:count])) for texts in drawn) / len(drawn) for count in (k // 2, k))
    return whole * (n / k) ** (log2(whole / half) / log2(k / (k // 2)))
