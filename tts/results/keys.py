"""The canonical keys of answers, kept in the store: a second run reads them and starts no process that parses.

They can be made again at any time, so nothing here stops a run: a damaged table is removed and filled anew, and where
the store can't be written the keys are found again by the next run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Literal

import msgspec

from tts.answers import VERSION, Canonical
from tts.errors import InputError
from tts.results.store import Store

PARSERS = ("sympy", "mpmath", "latex2sympy2_extended", "antlr4-python3-runtime")  # whose versions a key depends on


class _Kept(msgspec.Struct):
    key: tuple[str]  # the answer
    canonical: Annotated[list[object], msgspec.Meta(min_length=1)] | None
    status: Literal["parsed", "text", "rejected", "empty"]  # a timeout is tried again


class KeptKeys:
    """The table of a store for the policies and parsers of now (a tts.answers.Memory)."""

    def __init__(self, store: Store):
        self.table = store.table("answers", {"policies": VERSION} | {name: version(name) for name in PARSERS})

    def read(self) -> dict[str, Canonical]:
        """All kept keys by answer, nested parts as lists; none where the table is damaged, which is then removed."""
        try:
            kept = msgspec.convert(list(self.table.read().values()), list[_Kept])
        except (InputError, OSError, msgspec.ValidationError, TypeError) as error:
            self._say("can't be read and are made anew", error)
            try:
                self.table.path.unlink()
            except OSError as error:
                self._say("can't be removed", error)
            return {}
        return {one.key[0]: Canonical(one.canonical, one.status) for one in kept}

    def append(self, found: Mapping[str, Canonical]) -> None:
        """Keep what is there to keep: no timeouts, and no text that is not valid Unicode."""
        records = [
            {"key": [answer], "canonical": key, "status": status}
            for answer, (key, status) in found.items()
            if status != "timeout" and answer == answer.encode(errors="ignore").decode()
        ]
        try:
            self.table.append(records)
        except InputError as error:
            self._say("are not kept", error)

    def _say(self, what: str, why: Exception) -> None:
        print(f"the keys of answers in {self.table.path} {what}: {' '.join(str(why).split())}", file=sys.stderr)
