"""Many problems at once, each stored when it is done: the only place where policies and scorers meet the store.

Progress goes to stderr, which committed notebooks leave out, because a second run has less of it to report.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from inspect import signature
from pathlib import Path
from typing import IO

import pandas as pd
from tqdm import tqdm

from tts.analysis.cost import measured
from tts.errors import EngineError, InputError, check_counts
from tts.models.engines import PATIENCE
from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem
from tts.results.shards import ShardStore
from tts.results.store import Key, Record, Store, Table
from tts.strategies import majority
from tts.tree import Search, score_whole, split_steps, together

Strategy = Callable[..., Awaitable[Search]]  # (problem, policy, prm, *, n, sampling) -> Search
Make = Callable[[Problem, Sequence[Key]], Awaitable[list[Record]]]  # (problem, its missing keys) -> their records

USUAL = 64  # problems in flight
ATTEMPTS = 2  # a problem whose engine call fails is tried once more, then recorded as failed
GIVE_UP = 3  # so many failed problems with none that succeeded: the engine is broken, not the problem
STORED_NAMES = {"beam_width": "width"}  # what a setting is called in a key: as when its first searches were stored
# What waits counts as failed after patience seconds without progress, times this: an engine that watches its own
# requests (tts.models.engines) gives up first, after patience, and sends them elsewhere if it can, which is progress.
LAST_TO_GIVE_UP = 1.5
LOOK = 0.2  # seconds between two looks at a lock that another process holds


async def sample(
    problems: Sequence[Problem],
    policy: Policy,
    store: Store,
    *,
    n: int,
    sampling: Sampling = Sampling(),
    concurrency: int = USUAL,
    patience: float = PATIENCE,
) -> pd.DataFrame:
    """n independent solutions of each problem (tts.strategies.majority): stored ones are read, missing ones are drawn.

    Returns one row a sample, ordered by problem and index, with the columns problem (id), index, text, tokens, logprob,
    finish ("end", "stop", "length"; "failed" with the reason in error), and those of score() below where the store has
    them with the samples (tts.results.replay). concurrency counts problems in flight, 0 for as many as fill the engines
    (problems_at_once); patience the seconds without progress, of the engine or of any problem, after which those in
    flight are tried again and then recorded as failed.
    A sample's key is free of n, PRM and vote: all methods share the samples, and a larger n adds the missing ones.
    """
    check_counts(n=n)
    check_counts(0, concurrency=concurrency)
    table = store.table("samples", sample_settings(policy, sampling))
    wanted = {problem: [(problem.hash, index) for index in range(n)] for problem in problems}

    async def draw(problem: Problem, missing: Sequence[Key]) -> list[Record]:
        first, last = missing[0][1], missing[-1][1]  # samples are stored in order, but for those that failed
        drawn = await majority(problem, policy, n=last + 1, first=first, sampling=sampling)
        prompt_tokens = len(policy.prompt(problem.text))
        return [
            {
                "key": (problem.hash, *solution.path),
                "problem": problem.id,
                "text": solution.text,
                "tokens": solution.tokens,
                "prompt_tokens": prompt_tokens,
                "logprob": solution.logprob,
                "finish": solution.finish,
                "made_by": dict(policy.provenance),
            }
            for solution in drawn.solutions
        ]

    limits = {"concurrency": concurrency, "patience": patience}
    records = await _complete(store, table, wanted, draw, f"{policy.name}: samples", policy=policy, **limits)
    columns = ["text", "tokens", "prompt_tokens", "logprob", "finish", "error"]
    columns += [name for name in ("scores", "unscored") if any(name in record for record in records.values())]
    return pd.DataFrame(
        [
            {"problem": problem.id, "index": key[1], **{name: records[key].get(name) for name in columns}}
            for problem, keys in wanted.items()
            for key in keys
        ]
    )


async def score(
    problems: Sequence[Problem],
    samples: pd.DataFrame,
    prm: StepScorer,
    store: Store,
    *,
    concurrency: int = USUAL,
    patience: float = PATIENCE,
) -> pd.DataFrame:
    """samples (of sample() above) with the PRM's scores, as best_of_n gives them: stored ones are read, others made.

    New columns: scores, a list with one score in [0, 1] a step (tts.tree.split_steps), and unscored, why that list is
    empty: "" (it is not, or the text is blank), "too long" for the PRM's context, or "failed". A score's key is the
    PRM, the problem and the text, so equal solutions are scored once, whatever they were sampled for.
    """
    check_counts(0, concurrency=concurrency)
    table = store.table("scores", {"prm": prm.fingerprint})
    texts = samples[samples.text.notna()].groupby("problem").text.unique()
    wanted = {
        problem: {(problem.hash, text_hash(text)): text for text in texts.get(problem.id, ())} for problem in problems
    }

    async def read(problem: Problem, missing: Sequence[Key]) -> list[Record]:
        steps = [split_steps(wanted[problem][key]) for key in missing]
        found = await together(score_whole(prm, problem, one) for one in steps)
        return [
            {
                "key": key,
                "problem": problem.id,
                "scores": scores,
                "unscored": "too long" if one and not scores else "",
                "made_by": dict(prm.provenance),
            }
            for key, one, scores in zip(missing, steps, found, strict=True)
        ]

    limits = {"concurrency": concurrency, "patience": patience}
    records = await _complete(store, table, wanted, read, f"{prm.name}: scored solutions", prm=prm, **limits)
    keys = {(problem.id, text): key for problem, of_it in wanted.items() for key, text in of_it.items()}
    found = [
        records[keys[problem, text]] if isinstance(text, str) else {"error": "not sampled"}
        for problem, text in zip(samples.problem, samples.text, strict=True)
    ]
    return samples.assign(
        scores=[list(record.get("scores", [])) for record in found],
        unscored=["failed" if record.get("error") else record["unscored"] for record in found],
    )


async def search(
    problems: Sequence[Problem],
    strategy: Strategy,
    policy: Policy,
    prm: StepScorer,
    store: Store,
    *,
    n: int,
    sampling: Sampling = Sampling(),
    concurrency: int = USUAL,
    patience: float = PATIENCE,
) -> list[Search | None]:
    """One search a problem, in their order; stored ones are read, missing ones made and stored; None is a failed one.

    strategy: tts.strategies.beam_search, dvts or another of their kind; functools.partial sets what it has beside n and
    sampling: partial(beam_search, beam_width=2). A record holds the whole tree. concurrency: as in sample().
    """
    check_counts(n=n)
    check_counts(0, concurrency=concurrency)
    name = name_of(strategy)
    table = store.table("searches", settings_of_search(strategy, policy, prm, n=n, sampling=sampling))
    wanted = {problem: [(problem.hash,)] for problem in problems}

    async def run(problem: Problem, missing: Sequence[Key]) -> list[Record]:
        found = await strategy(problem, policy, prm, n=n, sampling=sampling)
        made_by = dict(policy.provenance)
        return [{"key": missing[0], "problem": problem.id, "search": found.to_dict(), "made_by": made_by}]

    limits = {"concurrency": concurrency, "patience": patience, "each": n}
    records = await _complete(store, table, wanted, run, f"{name}, n = {n}: searches", policy=policy, prm=prm, **limits)
    found = [records[key].get("search") for [key] in wanted.values()]
    return [Search.from_dict(record) if record else None for record in found]


def name_of(strategy: Strategy) -> str:
    """The name of a strategy, also of one whose settings functools.partial has set."""
    return strategy.func.__name__ if isinstance(strategy, partial) else strategy.__name__


def settings_of_search(
    strategy: Strategy, policy: Policy, prm: StepScorer, *, n: int, sampling: Sampling
) -> dict[str, object]:
    """Exactly what determines a search, besides the problem: what its key is hashed from."""
    settings = sample_settings(policy, sampling) | {"strategy": name_of(strategy), "prm": prm.fingerprint, "n": int(n)}
    return settings | search_settings(strategy)


def search_settings(strategy: Strategy) -> dict[str, object]:
    """What a strategy has beside n and sampling, as its key has it: beam width and depth, and what differs from the
    defaults; so that a new setting leaves the keys of earlier searches as they were.
    """
    plain = strategy.func if isinstance(strategy, partial) else strategy
    defaults = {name: setting.default for name, setting in signature(plain).parameters.items()}
    now = {name: setting.default for name, setting in signature(strategy).parameters.items()}
    own = {name: value for name, value in now.items() if name in ("beam_width", "depth") or value != defaults[name]}
    return {STORED_NAMES.get(name, name): value for name, value in own.items()}


def sample_settings(policy: Policy, sampling: Sampling) -> dict[str, object]:
    """Exactly what determines a sample, besides the problem and the sample's index: what its key is hashed from."""
    return {
        "policy": policy.fingerprint,
        "prompt": dict(policy.prompt_settings),
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "max_tokens": int(sampling.max_tokens),
        "seed": int(sampling.seed) if sampling.temperature else None,  # greedy decoding has no seed
    }


@dataclass(frozen=True)
class Gap:
    """Records of one table that a store lacks, and what makes them."""

    table: Table
    missing: Mapping[Problem, Sequence[Key]]
    make: Make
    policy: Policy | None
    prm: StepScorer | None


class DryStore(Store):
    """A store that collect only looks at: what is missing is noted in gaps instead of being made.

    A missing record comes back as if it had failed, and is noted once. A missing sample has a text of its own, so that
    its score is missing too.
    """

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self.gaps: list[Gap] = []
        self.unsampled: dict[str, str] = {}  # hash of the text of a missing sample -> the name of its table
        self._tables: dict[Path, dict[Key, Record]] = {}

    def look(self, table: Table, wanted: Mapping[Problem, Collection[Key]], make: Make, **models: object) -> dict:
        """The records of a table, after noting which of wanted are missing."""
        if table.folder not in self._tables:  # without the trees, which take most of the memory
            read = table.read()
            self._tables[table.folder] = {k: {**record, "search": None} for k, record in read.items()}
        records = self._tables[table.folder]
        if missing := _missing(records, wanted):
            self.gaps.append(Gap(table, missing, make, **models))
        for key in (key for keys in missing.values() for key in keys):
            text = f"{table.folder.name}, {key}: not made"
            self.unsampled[text_hash(text)] = table.folder.name
            records[key] = {"text": text, "finish": "failed", "unscored": "failed"}
        return records


async def _complete(
    store: Store,
    table: Table,
    wanted: Mapping[Problem, Collection[Key]],
    make: Make,
    what: str,
    *,
    policy: Policy | None = None,
    prm: StepScorer | None = None,
    concurrency: int,
    patience: float,
    each: int = 0,
) -> dict[Key, Record]:
    """All records of a table, after make(problem, its missing keys) has made those of wanted that were not stored.

    A problem's records are appended as soon as they are made. what: for messages, such as "policy-xs: samples".
    each: requests of a problem at once; 0 for one a key.
    In a ShardStore, records of other problems that are not stored come back as failed.
    """
    if isinstance(store, DryStore):
        return store.look(table, wanted, make, policy=policy, prm=prm)
    asked = wanted
    if isinstance(store, ShardStore):
        wanted = {problem: keys for problem, keys in wanted.items() if problem.hash in store.mine}
    name, _, things = what.rpartition(": ")
    records = table.read()
    todo = _missing(records, wanted)
    if todo and table.read_only:
        raise InputError(f"{name}: {sum(map(len, todo.values())):,} of these {things} are missing: {table.read_only}")
    async with _only_maker(table, name, things) if todo else nullcontext():
        if todo:  # another process may have made some of it meanwhile
            records = table.read()
            todo = _missing(records, wanted)
        made = sum(map(len, wanted.values())) - (left := sum(map(len, todo.values())))
        print(f"{name}: {made:,} {things} stored, {left:,} to make", file=sys.stderr)
        if todo:
            each = each or max(map(len, todo.values()))
            with _accounted(store, table, policy, prm):
                at_once = concurrency or problems_at_once(each, policy, prm)
                try:
                    await _run_all(todo, make, table, at_once, patience, (policy, prm), label=what)
                except asyncio.CancelledError:  # an interrupt, of which a notebook shows where it came and no more
                    print(f"{name}: interrupted; finished {things} are stored, run it again to go on", file=sys.stderr)
                    raise
            records = table.read()
    _warn_if_mixed(records, wanted)
    if isinstance(store, ShardStore):
        store.failed |= {(str(table.folder), key) for keys in _missing(records, wanted).values() for key in keys}
        elsewhere = {"finish": "failed", "error": "another shard makes it"}
        records |= {key: elsewhere for keys in _missing(records, asked).values() for key in keys if key not in records}
    return records


def problems_at_once(each: int, *engines: object) -> int:
    """As many problems, of `each` requests at once, as their engines have room for; USUAL where no engine says.

    More would only wait, and what a search has read would leave the engine's cache before its next step.
    """
    rooms = [engine.room for engine in engines if hasattr(engine, "room")]
    return max(2, min(rooms) // each) if rooms else USUAL


@asynccontextmanager
async def _only_maker(table: Table, name: str, things: str) -> AsyncIterator[None]:
    """One process at a time makes records of a table; another one waits here, then finds what was made.

    It looks at the lock again and again and never blocks, so the event loop runs on and an interrupt ends the waiting.
    A lock ends with the process that holds it. No two can wait for each other: whoever holds one asks for no other.
    """
    with ExitStack() as held:
        try:
            table.folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((table.folder / "lock").open("a"))
            if not _lock(file):
                print(f"{name}: another process makes these {things}, waiting for it", file=sys.stderr)
            while not _lock(file):
                await asyncio.sleep(LOOK)
        except OSError as error:  # a file system without locks, or a folder where nothing can be written
            print(
                f"{name}: can't lock {table.folder} ({error.strerror}): "
                f"a run that goes on beside this one may make the same {things}",
                file=sys.stderr,
            )
        yield


def _lock(file: IO) -> bool:
    """Lock a file until it is closed; False while someone else holds the lock. Locking it again changes nothing."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _run_all(
    todo: Mapping[Problem, Sequence[Key]],
    make: Make,
    table: Table,
    concurrency: int,
    patience: float,
    engines: Sequence[object],
    *,
    label: str,
) -> None:
    """Run make(problem, keys) for all of todo, appending the records of each problem when it is done."""
    places = asyncio.Semaphore(concurrency)
    succeeded = failed = 0

    def progress() -> object:
        return succeeded, failed, *(getattr(engine, "progress", None) for engine in engines)

    async def attempt(problem: Problem, keys: Sequence[Key]) -> None:
        nonlocal succeeded, failed
        async with places:
            for left in reversed(range(ATTEMPTS)):
                try:
                    records = await _while_it_goes_on(make(problem, keys), progress, patience)
                    succeeded += 1
                    break
                except* EngineError as errors:
                    reason = str(_first(errors))
                    if left == 0:
                        failed += 1
                        reasons = {"problem": problem.id, "finish": "failed", "error": reason}
                        records = [{"key": key, **reasons} for key in keys]
            table.append(records)
            bar.update(len(keys))
            if failed >= GIVE_UP and not succeeded:
                raise EngineError(
                    f"the first {failed} problems failed ({reason}); what is stored is kept, a rerun resumes"
                )

    # Plain text on stderr, also in a notebook: widgets would stay in the stored notebook.
    with tqdm(total=sum(map(len, todo.values())), desc=label, mininterval=1, file=sys.stderr) as bar:
        try:
            async with asyncio.TaskGroup() as group:
                for problem, keys in todo.items():
                    group.create_task(attempt(problem, keys))
        except* (EngineError, InputError) as errors:  # one clear line instead of a tree of tracebacks
            raise _first(errors) from None


async def _while_it_goes_on(
    work: Awaitable[list[Record]], progress: Callable[[], object], patience: float
) -> list[Record]:
    """The result of work. Raises EngineError if progress() stays the same for patience seconds, see LAST_TO_GIVE_UP."""
    task = asyncio.ensure_future(work)
    try:
        before, since = progress(), time.monotonic()
        while not (await asyncio.wait([task], timeout=patience / 10))[0]:
            if (now := progress()) != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since >= LAST_TO_GIVE_UP * patience:
                raise EngineError(f"no progress for {patience:g} s: the engine hangs, or raise patience")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def _accounted(store: Store, table: Table, policy: Policy | None, prm: StepScorer | None) -> Iterator[None]:
    """Print and store what the engines did meanwhile, also when the run is cut short: kind "usage", a record a run."""
    before, began = measured(policy, prm), datetime.now(UTC)
    try:
        yield
    finally:
        spent = measured(policy, prm) - before
        print(f"used: {spent}", file=sys.stderr)
        of = f"{table.folder.parent.name}/{table.folder.name}"
        seconds = round((datetime.now(UTC) - began).total_seconds(), 1)
        store.table("usage", {}).append(
            [{"key": (of, began.isoformat()), "usage": spent.to_dict(), "seconds": seconds}]
        )


def text_hash(text: str) -> str:
    """What stands for a solution's text in the key of its scores."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _first(group: BaseExceptionGroup) -> BaseException:
    error = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _missing(stored: Mapping[Key, Record], wanted: Mapping[Problem, Collection[Key]]) -> dict[Problem, list[Key]]:
    """What is to be made of each problem. A failed record is tried again; a later success takes its place."""
    missing = {
        problem: [key for key in keys if key not in stored or stored[key].get("error")]
        for problem, keys in wanted.items()
    }
    return {problem: keys for problem, keys in missing.items() if keys}


def _warn_if_mixed(records: Mapping[Key, Record], wanted: Mapping[Problem, Collection[Key]]) -> None:
    """Engine, dtype and versions should not matter, so no key has them; where they are mixed, the reader is told."""
    makers = {
        ", ".join(f"{name} {value}" for name, value in records[key]["made_by"].items())
        for keys in wanted.values()
        for key in keys
        if "made_by" in records[key]
    }
    if len(makers) > 1:
        print("these samples were made in different ways: " + "; ".join(sorted(makers)), file=sys.stderr)
