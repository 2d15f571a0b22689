"""Problems and where they come from: the embedded benchmark, a local JSON-lines file, or a hub data set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One problem with its gold answer; the fields that only some data sets have are empty elsewhere."""

    id: str
    text: str
    answer: str
    solution: str = ""
    subject: str = ""
    level: int = 0  # the data set's own level, 1-5; 0 where it has none
