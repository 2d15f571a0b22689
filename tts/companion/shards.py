"""A run past one machine: make one shard's part of what the notebooks read, and merge the shards' stores into one.

A shard runs no notebook and draws no figure: it makes the calls of tts.companion.estimate.COLLECTS, as --estimate does.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tts import answers
from tts.companion.estimate import COLLECTS, TRAINED, Lack, missing
from tts.companion.plan import Job
from tts.companion.setup import set_up
from tts.errors import EngineError, InputError
from tts.problems import load_problems
from tts.results.keys import KeptKeys
from tts.results.shards import FOLDER, Merged, Shard, ShardStore, merge
from tts.results.store import Store

SHOWN = 20  # lines of a long list


def make(jobs: Sequence[Job], shard: Shard) -> str:
    """Make what the notebooks read of the shard's problems, and say so. Raises EngineError if some of it failed."""
    unknown = [job.name for job in jobs if job.name not in COLLECTS]
    if unknown:
        print(
            f"run_all: what {', '.join(unknown)} reads is not known here, so it has no part in a shard", file=sys.stderr
        )
    return asyncio.run(_make([job for job in jobs if job.name in COLLECTS], shard))


async def _make(jobs: Sequence[Job], shard: Shard) -> str:
    began, folders, failed = time.monotonic(), {}, set()
    for job in jobs:
        setup = set_up(job.parameters)
        problems = shard.of(setup.problems)
        folder = shard.folder(job.store)
        setup.store = ShardStore(folder, beside=job.store, problems=problems)
        answers.remember(KeptKeys(setup.store))
        print(f"== {job.name}, shard {shard}: {len(problems)} of {len(setup.problems)} problems", file=sys.stderr)
        await COLLECTS[job.name](setup)
        failed |= setup.store.failed
        folders[folder] = None
    if failed:
        raise EngineError(f"run_all: {len(failed)} records of shard {shard} failed: run it again to try them again")
    sizes = ", ".join(f"{Store(folder).bytes() / 1e6:.1f} MB in {folder}" for folder in folders)
    return f"shard {shard} is done after {time.monotonic() - began:.0f} s: {sizes or 'nothing to make'}"


def collect(jobs: Sequence[Job], folders: Sequence[Path]) -> tuple[str, bool]:
    """Merge stores (none named: those of the shards) into that of the notebooks.

    Returns what came of it in words, and whether all that the notebooks read is there.
    """
    into = {job.store for job in jobs}
    if len(into) != 1:
        raise InputError(f"store: the notebooks have {len(into)} stores: choose those of one store with --only")
    [into] = into
    if not folders:
        folders = [marker.parent for marker in sorted((into / FOLDER).glob("*/schema.json"))]
    merged = merge(folders, into)
    lacks = asyncio.run(missing(jobs))
    lines = [
        f"merged {len(folders)} stores into {into}: {merged.added:,} records added, {merged.there:,} were there",
        *(
            f"torn: the last record of {path} is cut off: its shard is still running, or run it again"
            for path in merged.torn
        ),
        *(_of_missing(lacks) or _complete(jobs, into)),
        *_to_run_again(jobs, lacks, into),
        *_of_conflicts(merged),
    ]
    return "\n".join(lines), not lacks


def _complete(jobs: Sequence[Job], into: Path) -> list[str]:
    trains = [f"not in the shards: {job.name}, {TRAINED[job.name]}" for job in jobs if job.name in TRAINED]
    return [f"complete: run the notebooks for their figures; {into / FOLDER} can be removed", *trains]


def _of_missing(lacks: Sequence[Lack]) -> list[str]:
    lines = ["missing:"] if lacks else []
    for lack in lacks:
        problems = len(lack.gap.missing)
        about = "about " if lack.unsampled else ""
        lines.append(f"  {lack.notebook}: {lack.what}: {about}{lack.records:,} records of {problems:,} problems")
    return lines


def _to_run_again(jobs: Sequence[Job], lacks: Sequence[Lack], store: Path) -> list[str]:
    """Which shards would make what is missing, where the stores tell how the run was cut."""
    counts = {int(folder.name.rpartition("-")[2]) for folder in (store / FOLDER).glob("*-of-*")}
    if not lacks or len(counts) != 1:
        return []
    [count] = counts
    lacking = {problem.hash for lack in lacks for problem in lack.gap.missing}
    shards = [Shard(index, count) for index in range(1, count + 1)]
    again = set()
    for job in jobs:
        problems = load_problems(job.parameters["problems"], n=job.parameters["n_problems"])
        again |= {shard for shard in shards if lacking & {problem.hash for problem in shard.of(problems)}}
    return [f"run again: {', '.join(f'--shard {shard}' for shard in shards if shard in again)}"]


def _of_conflicts(merged: Merged) -> list[str]:
    lines = []
    if merged.near:
        lines.append(
            f"made twice, {merged.near:,} keys, whose numbers differ by up to {merged.furthest:.2g} and nothing else: "
            "all are kept, the first is read"
        )
    if merged.conflicts:
        more = len(merged.conflicts) - SHOWN
        lines += [
            f"in conflict, {len(merged.conflicts):,} keys (made twice and different: all are kept, the first is read):",
            *(f"  {line}" for line in merged.conflicts[:SHOWN]),
            *([f"  and {more:,} more"] if more > 0 else []),
        ]
    return lines
