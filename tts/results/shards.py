"""A run cut into shards: who makes which problems, stores that several machines write apart, and one store from them.

The unit of work is a problem. Shard i of N takes every N-th problem of the list: so all shards are equally large (by a
hash some would be a fifth larger and end last), and a longer list leaves each problem in its shard. The keys of records
don't know of shards, so how a run was cut changes nothing that is stored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tts.errors import InputError
from tts.problems import Problem
from tts.results.store import Key, Record, Store, Table, settings_hash, whole_lines

FOLDER = "shards"  # of a store: the stores of its shards
SLURM = "slurm"
BATCH = 1000  # records that are copied at once
FAILED = "failed"


@dataclass(frozen=True)
class Shard:
    """Part i of N of a list of problems, counted from 1."""

    index: int
    count: int

    @classmethod
    def read(cls, text: str, environment: Mapping[str, str]) -> Shard:
        """The shard that "2/8" names; "slurm" is the place of this task in its job array."""
        if text == SLURM:
            return cls._of_array(environment)
        numbers = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
            raise InputError(f"--shard {text}: give i/N with i from 1 to N, such as 2/8, or {SLURM} in a job array")
        return cls(int(numbers[1]), int(numbers[2]))

    @classmethod
    def _of_array(cls, environment: Mapping[str, str]) -> Shard:
        names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
        try:
            task, first, last, count = (int(environment[name]) for name in names)
        except (KeyError, ValueError):
            raise InputError(
                f"--shard {SLURM}: {', '.join(names)} are not all set: this is no task of a job array; give --shard i/N"
            ) from None
        # An array of only some tasks (sbatch --array=3, to run one again) does not say how many there were at first.
        if first > 1 or last - first + 1 != count or count == 1:
            raise InputError(
                f"--shard {SLURM}: the array's {count} tasks from {first} to {last} don't say how many shards there "
                'are: give it, such as --shard "$SLURM_ARRAY_TASK_ID/8"'
            )
        return cls(task - first + 1, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, problems: Sequence[Problem]) -> Sequence[Problem]:
        """Its problems."""
        return problems[self.index - 1 :: self.count]

    def folder(self, store: Path) -> Path:
        """Where its own store lies: in a folder of the store that all shards are to be merged into."""
        return store / FOLDER / f"{self.index}-of-{self.count}"


class ShardStore(Store):
    """A store of its own for the work on some problems; it also finds what another store has, and never writes there.

    tts.results.collect makes nothing for other problems: what is not stored of them counts as failed.
    """

    def __init__(self, folder: str | Path, *, beside: str | Path, problems: Collection[Problem]):
        super().__init__(folder)
        self.beside = Store(beside)
        self.mine = frozenset(problem.hash for problem in problems)
        self.failed: set[tuple[str, Key]] = set()  # (table, key) of what could not be made

    def table(self, kind: str, settings: Mapping[str, object]) -> Table:
        """See Store.table."""
        own, there = super().table(kind, settings), self.beside.table(kind, settings)
        return _Both(self, own.folder, own.settings, there)


class _Both(Table):
    """A table that reads another one too."""

    def __init__(self, store: Store, folder: Path, settings: dict[str, object], there: Table):
        super().__init__(store, folder, settings)
        self._there = there

    def _lines(self) -> Iterator[tuple[Key, Record]]:
        yield from self._there._lines()
        yield from super()._lines()


# --- One store from several ---------------------------------------------------------------------------------------


@dataclass
class Merged:
    """What came of merging stores: counts of records, and what to look at."""

    added: int = 0
    there: int = 0  # the same record was in the store already
    torn: list[Path] = field(default_factory=list)  # files whose last record is cut off
    conflicts: list[str] = field(default_factory=list)  # a line for each key with different results
    near: int = 0  # keys whose results differ in decimal numbers alone, as those of two machines do by rounding
    furthest: float = 0.0  # the largest difference between two such numbers


def merge(stores: Sequence[Path], into: Path) -> Merged:
    """Copy the records that the store `into` lacks from the others, byte for byte. A second time it copies nothing.

    Where a key has different results, all of them stay in the file and the first success is read (Table.read); this
    and every later merge says so. Raises InputError for a folder that is no store, a damaged line and settings
    that don't fit their folder; what was copied by then stays, and nothing is ever removed.
    """
    target, found = Store(into), Merged()
    for folder in stores:
        if not (folder / "schema.json").is_file():
            raise InputError(f"collect: {folder} is no store (it has no schema.json): name the folder of a shard")
        if folder.resolve() == into.resolve():
            raise InputError(f"collect: {folder} is the store to merge into: name the others")
        Store(folder)
    tables: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for folder in stores:
        for file in sorted(folder.glob("*/*/records.jsonl")):
            tables[file.parts[-3], file.parts[-2]].append(file)
    for (kind, name), files in sorted(tables.items()):
        _merge_table(target.table(kind, _settings(files[0], name)), files, found)
    return found


def _settings(file: Path, name: str) -> dict[str, object]:
    path = file.with_name("settings.json")
    try:
        settings = json.loads(path.read_bytes())
        fits = settings_hash(settings) == name
    except (OSError, ValueError, TypeError):
        fits = False
    if not fits:
        raise InputError(f"collect: {path} is missing, damaged or of another table: copy that store again")
    return settings


def _merge_table(table: Table, files: Sequence[Path], found: Merged) -> None:
    known: dict[Key, set[str]] = defaultdict(set)  # what the records of a key say
    for line in whole_lines(table.path):
        key, says = _says(line, table.path)
        known[key].add(says)
    for file in files:
        new = []
        for line in whole_lines(file, torn=found.torn):
            key, says = _says(line, file)
            if says in known[key]:
                found.there += 1
                continue
            known[key].add(says)
            new.append(line)
            found.added += 1
            if len(new) == BATCH:
                table.append_lines(new)
                new = []
        if new:
            table.append_lines(new)
    _compare(table, {key for key, says in known.items() if len(says - {FAILED}) > 1}, found)


def _compare(table: Table, keys: Collection[Key], found: Merged) -> None:
    """Note how the results of each of these keys differ from the first one."""
    results: dict[Key, list[Record]] = defaultdict(list)
    for line in whole_lines(table.path) if keys else ():
        key, says = _says(line, table.path)
        if key in keys and says != FAILED:
            results[key].append(msgspec.json.decode(line))
    for key, (first, *others) in results.items():
        distance = max(_distance(_content(first), _content(other)) for other in others)
        if distance < math.inf:
            found.near += 1
            found.furthest = max(found.furthest, distance)
        else:
            where = f"{table.folder.parent.name}/{table.folder.name}, problem {first.get('problem', '-')}"
            found.conflicts.append(f"{where}, key {'/'.join(map(str, key))}: {1 + len(others)} results")


def _distance(one: object, other: object) -> float:
    """The largest difference between numbers in the same place; infinite where anything but a decimal differs."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((_distance(value, other[name]) for name, value in one.items()), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(_distance, one, other), default=0.0)
    return 0.0 if one == other else math.inf


def _content(record: Record) -> Record:
    """A record without what it was made by."""
    return {name: value for name, value in record.items() if name != "made_by"}


def _says(line: bytes, file: Path) -> tuple[Key, str]:
    """The key of a record and a hash of what it says, however it was made; FAILED for every failure."""
    try:
        record = msgspec.json.decode(line, type=dict[str, msgspec.Raw])  # trees are not read
        key = tuple(msgspec.json.decode(record["key"]))
    except (ValueError, TypeError, LookupError):
        raise InputError(f"collect: {file} has a damaged line: copy that store again, or remove the line") from None
    if "error" in record and msgspec.json.decode(record["error"]):
        return key, FAILED
    content = sorted((name, bytes(value)) for name, value in _content(record).items())
    return key, hashlib.sha256(repr(content).encode()).hexdigest()
