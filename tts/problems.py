"""Problems and where they come from: the embedded benchmark, a local file, or a data set of the hub."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

from tts.errors import InputError, check_counts
from tts.tiny import DATA

EMBEDDED = {"tiny/test": DATA / "test.jsonl", "tiny/dev": DATA / "dev.jsonl"}
SUFFIXES = (".jsonl", ".json", ".gz", ".parquet")  # name a file, whether it is there or not
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Problem:
    """One problem with its gold answer; the fields that only some data sets have are empty elsewhere."""

    id: str
    text: str
    answer: str
    solution: str = ""
    subject: str = ""
    level: int = 0  # the data set's own level, 1-5; 0 where it has none

    @property
    def hash(self) -> str:
        """Identifies the problem as a policy sees it, so that an edited text never meets its old samples."""
        return hashlib.sha256(f"{self.id}\0{self.text}".encode()).hexdigest()[:16]


def load_problems(source: str, *, n: int = 0) -> list[Problem]:
    """The first n problems of source (0: all), in its own order.

    source  "tiny/test" or "tiny/dev" (the embedded benchmark); a file of JSON lines, of one JSON array or of Parquet,
            gzipped or not; or what `datasets` loads, a folder or a hub data set: "owner/name", "owner/name@revision" or
            "owner/name@revision:split" (revision main, split test by default)
    Each row needs `problem` and `answer`; `unique_id` (or `id`), `solution`, `subject` and `level` are optional.
    """
    check_counts(0, n_problems=n)
    path = EMBEDDED.get(source) or Path(os.path.expanduser(source))  # an unknown home stays ~
    is_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~")) and path.suffix not in SUFFIXES
    rows = _read_dataset(str(path)) if path.is_dir() or (is_hub_id and not path.is_file()) else _read_file(path)
    problems: dict[str, Problem] = {}
    for where, row in islice(rows, n or None):
        problem = _problem(row, where, source)
        if problem.id in problems:
            raise InputError(f"problems: {source}, {where} has the id {problem.id!r} twice: make them unique")
        problems[problem.id] = problem
    if not problems:
        raise InputError(f"problems: {source} is empty: give one JSON object with `problem` and `answer` a line")
    if len(problems) < n:
        raise InputError(f"n_problems is {n}, but {source} has {len(problems)}: ask for fewer, or 0 for all")
    return list(problems.values())


def _problem(row: object, where: str, source: str) -> Problem:
    if not isinstance(row, dict):
        raise InputError(f"problems: {source}, {where} is no JSON object: give one with `problem` and `answer`")

    def value(column: str, *kinds: type) -> object:
        """What stands in a column, text or of one of these kinds; None where nothing does."""
        found = row.get(column)
        if found is None or isinstance(found, str) or type(found) in kinds:
            return None if isinstance(found, str) and not found.strip() else found
        wrong = f"`{column}` is {_KINDS.get(type(found), type(found).__name__)} ({found!r:.40}), not text"
        raise InputError(f'problems: {source}, {where}: {wrong}: write text in quotes, such as "7" or "1, 2"')

    for column in ("problem", "answer"):
        if value(column) is None:
            found = ", ".join(row) or "nothing"
            raise InputError(f"problems: {source}, {where}: no text in column `{column}` (found {found}): write some")
    level = str(value("level", int, float)).removeprefix("Level ").removesuffix(".0")
    return Problem(
        id=str(next(name for name in (value("unique_id", int), value("id", int), where) if name is not None)),
        text=row["problem"],
        answer=row["answer"],
        solution=str(row.get("solution") or ""),
        subject=str(row.get("subject") or row.get("type") or ""),
        level=int(level) if level.isdecimal() else 0,
    )


def _read_file(path: Path) -> Iterator[tuple[str, object]]:
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        if data.startswith(b"PAR1"):
            import pandas  # slow to import, and few need it

            data = pandas.read_parquet(BytesIO(data), dtype_backend="pyarrow").to_json(orient="records").encode()
        text = data.decode(json.detect_encoding(data))
    except FileNotFoundError:
        known = f"a file (from the current folder, in a notebook its own), a hub id owner/name, {', '.join(EMBEDDED)}"
        raise InputError(f"problems: there is no file {path}: give {known}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"line {line} is not {error.encoding} ({error.reason}): save the file as UTF-8"
        raise InputError(f"problems: {path}, {wrong}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"problems: {path} can't be read ({reason}): is it whole, and yours to read?") from None
    is_array = text.lstrip().startswith("[")
    for number, piece in enumerate([text] if is_array else text.split("\n"), start=1):
        if not piece.strip():
            continue
        try:
            found = json.loads(piece)
        except json.JSONDecodeError as error:
            wrong = f"line {number + error.lineno - 1} is not JSON ({error.msg}): is the file cut off?"
            raise InputError(f"problems: {path}, {wrong}") from None
        yield from [(f"row {i}", row) for i, row in enumerate(found, 1)] if is_array else [(f"line {number}", found)]


def _read_dataset(source: str) -> Iterator[tuple[str, object]]:
    import datasets  # slow to import, and few need it

    name, _, rest = source.partition("@")
    revision, _, split = rest.partition(":")
    try:
        table = datasets.load_dataset(name, split=split or "test", revision=revision or None)
    except Exception as error:  # every release raises others; the user needs the one line
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        wrong = f"{source} can't be read ({reason}): check its name and the network, or give a local .jsonl"
        raise InputError(f"problems: the data set {wrong}") from None
    yield from ((f"row {i}", row) for i, row in enumerate(table, start=1))
