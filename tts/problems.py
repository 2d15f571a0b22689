"""Problems and where they come from: the embedded benchmark, a local JSON-lines file, or a hub data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tts.errors import InputError
from tts.tiny import DATA

EMBEDDED = {"tiny/test": DATA / "test.jsonl", "tiny/dev": DATA / "dev.jsonl"}


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

    source  "tiny/test" or "tiny/dev" (the embedded benchmark), the path of a JSON-lines file, or a hub data set as
            "owner/name", "owner/name@revision" or "owner/name@revision:split" (revision main, split test by default)
    Each row needs `problem` and `answer`; `unique_id` (or `id`), `solution`, `subject` and `level` are optional.
    """
    if n < 0:
        raise InputError(f"n_problems is {n}: give the number of problems, or 0 for all of them")
    if source in EMBEDDED:
        rows = _read_json_lines(EMBEDDED[source])
    elif source.endswith((".jsonl", ".json")) or Path(source).expanduser().exists():
        rows = _read_json_lines(Path(source).expanduser())
    elif source.count("/") == 1 and not source.startswith((".", "/", "~")):
        rows = _read_hub(source)
    else:
        raise InputError(
            f"problems={source!r} is no file and no data set: "
            f"give {', '.join(EMBEDDED)}, a .jsonl path or a hub id owner/name"
        )
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for where, row in rows:
        problem = _problem(row, where, source)
        if problem.id in seen:
            raise InputError(
                f"problems: {source} has the id {problem.id!r} twice ({seen[problem.id]} and {where}): make them unique"
            )
        seen[problem.id] = where
        problems.append(problem)
        if len(problems) == n:
            break
    if not problems:
        raise InputError(f"problems: {source} is empty: give one JSON object with `problem` and `answer` a line")
    if len(problems) < n:
        raise InputError(f"n_problems is {n}, but {source} has {len(problems)}: ask for fewer, or 0 for all")
    return problems


def _problem(row: Mapping[str, object], where: str, source: str) -> Problem:
    for column in ("problem", "answer"):
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            found = ", ".join(row) or "nothing"
            raise InputError(
                f"problems: {source}, {where}: no text in column `{column}` (found {found}): every row needs it"
            )
    level = str(row.get("level") or "0").removeprefix("Level ")
    return Problem(
        id=str(row.get("unique_id") or row.get("id") or where),
        text=str(row["problem"]),
        answer=str(row["answer"]),
        solution=str(row.get("solution") or ""),
        subject=str(row.get("subject") or row.get("type") or ""),
        level=int(level) if level.isdigit() else 0,
    )


def _read_json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    if not path.is_file():
        raise InputError(f"problems: there is no file {path}: check the path (it is taken from the notebook's folder)")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"problems: {path}, line {number} is not JSON ({error}): is the file cut off?"
                ) from None
            if not isinstance(row, dict):
                raise InputError(
                    f"problems: {path}, line {number} is no JSON object: give one with `problem` and `answer`"
                )
            yield f"line {number}", row


def _read_hub(source: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    import datasets  # slow to import and not needed for local problems

    name, _, rest = source.partition("@")
    revision, _, split = rest.partition(":")
    try:
        table = datasets.load_dataset(name, split=split or "test", revision=revision or None)
    except Exception as error:  # every release raises others; the user needs the one line
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"problems: the hub data set {source} can't be read ({reason}): "
            "check its name and the network, or give a local .jsonl"
        ) from None
    for number, row in enumerate(table, start=1):
        yield f"row {number}", row
