"""Results on disk: append-only tables of JSON lines. A hash of all that determines the records names each table.

    store/schema.json                  the version of this layout
    store/<kind>/<hash>/settings.json  what determines the records (models, prompt, sampling settings), in plain JSON
    store/<kind>/<hash>/records.jsonl  one record a line, in the order of completion

A record is identified inside its table by its `key` (a list such as [problem hash, sample index]). A failed attempt is
a record too (`error` is set); a later success replaces it when read. Records are never changed or removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tts.errors import InputError

if TYPE_CHECKING:
    import datasets

SCHEMA = 1

Record = dict[str, object]
Key = tuple[object, ...]


def settings_hash(settings: Mapping[str, object]) -> str:
    """The name of the table for settings, whatever the order of their keys."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """A folder of tables. Opening it writes nothing. A store of another schema raises InputError and stays as it is."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        marker = self.folder / "schema.json"
        if marker.exists():
            try:
                found = json.loads(marker.read_text())["schema"]
            except (ValueError, KeyError, TypeError):
                found = "unreadable"
            if found != SCHEMA:
                raise InputError(
                    f"store: {self.folder} has schema {found}, this version reads {SCHEMA}: "
                    "name another folder in `store` (nothing in it was changed)"
                )

    def table(self, kind: str, settings: Mapping[str, object]) -> Table:
        """The table of one kind ("samples", "scores", "searches") for exactly these settings."""
        return Table(self, self.folder / kind / settings_hash(settings), dict(settings))

    def bytes(self) -> int:
        """Disk used by all tables."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class Table:
    """One append-only file of records. Several processes may append at once, and each reads whole records only."""

    read_only = ""  # why nothing may be made for it, if so

    def __init__(self, store: Store, folder: Path, settings: dict[str, object]):
        self.store, self.folder, self.settings = store, folder, settings
        self.path = folder / "records.jsonl"

    def read(self) -> dict[Key, Record]:
        """All records by key, in order of key: the first success, or the last failure of a key without a success.

        A torn last line (the process was killed while writing) is ignored here and cut off by the next append. The tree
        in a record of "searches" is left as JSON (msgspec.Raw): to make dictionaries of it would take longer than all
        else, and Search.from_dict needs none.
        """
        records: dict[Key, Record] = {}
        for key, record in self._lines():
            if key not in records or records[key].get("error"):
                records[key] = record
        return dict(sorted(records.items()))

    def append(self, records: Iterable[Record]) -> None:
        """Write whole records and flush them to the disk. On a full disk none of them stays, and InputError says so."""
        self.append_lines(json.dumps(one, ensure_ascii=False, allow_nan=False).encode() + b"\n" for one in records)

    def append_lines(self, lines: Iterable[bytes]) -> None:
        """The same for records as they stand in another table, each with its line break."""
        data = b"".join(lines)
        try:
            self._prepare()
            with _locked(self.path) as file:
                end = _cut_torn_tail(file)
                try:
                    _write_all(file, data)
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise InputError(
                f"store: can't write {self.path} ({error.strerror}): free some space or name another folder in `store`;"
                " earlier results are kept"
            ) from error

    def dataset(self) -> datasets.Dataset:
        """The records of read() as a Hugging Face data set. Keys become text, their parts joined by "/"."""
        import datasets  # slow to import and seldom needed

        records = self.read()
        for record in records.values():
            if "search" in record:
                record["search"] = msgspec.json.decode(record["search"])
        # from_list has the columns of the first record alone, and a failure has others than a success.
        columns = dict.fromkeys(name for record in records.values() for name in record)
        return datasets.Dataset.from_list(
            [columns | record | {"key": "/".join(map(str, key))} for key, record in records.items()]
        )

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, content in (
            (self.store.folder / "schema.json", {"schema": SCHEMA}),
            (self.folder / "settings.json", self.settings),
        ):
            if not path.exists():
                draft = path.with_suffix(f".{os.getpid()}.tmp")
                draft.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
                draft.replace(path)  # atomic

    def _lines(self) -> Iterator[tuple[Key, Record]]:
        decode = _leave_tree if self.folder.parent.name == "searches" else msgspec.json.decode
        for number, line in enumerate(whole_lines(self.path), start=1):
            try:
                record = decode(line)
                key = tuple(record["key"])
            except (ValueError, TypeError, LookupError):
                raise InputError(
                    f"store: {self.path}, line {number} is damaged: remove that line to sample it again, "
                    "or name another folder in `store`"
                ) from None
            yield key, record


def whole_lines(file: Path, *, torn: list[Path] | None = None) -> Iterator[bytes]:
    """The lines of a file of records, none where there is no file. One whose last line is cut off goes to torn."""
    if file.exists():
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield line
                elif torn is not None:
                    torn.append(file)


def _leave_tree(line: bytes) -> Record:
    fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    return {name: value if name == "search" else msgspec.json.decode(value) for name, value in fields.items()}


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    """The file (made if missing), open unbuffered for reading and writing; other processes wait until it is closed."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _cut_torn_tail(file: FileIO) -> int:
    """Cut off what follows the last newline. Returns the size: where the next record begins."""
    end = file.seek(0, os.SEEK_END)
    start = end
    while start > 0:
        step = min(65536, start)
        file.seek(start - step)
        newline = file.read(step).rfind(b"\n")
        if newline >= 0:
            start = start - step + newline + 1
            break
        start -= step
    if start < end:
        file.truncate(start)
    return file.seek(start)
