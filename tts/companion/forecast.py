"""How long the rest of a run will take, from the seconds that each notebook took when it last only read the store."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Sequence

from tts.companion.plan import Job
from tts.results.store import Store


class Forecast:
    """What is left of a run, in words; nothing is said where nothing is known.

    Known are, in build/PROFILE/seconds.json, the seconds of runs that made nothing. They hold for a run with the same
    parameters and as many notebooks at once, as long as it makes nothing either: what sampling takes depends on what is
    stored already (./run_all.sh --estimate).
    """

    def __init__(self, jobs: Sequence[Job], *, at_once: int):
        self._jobs, self._at_once = jobs, at_once
        self._path = jobs[0].built.parent / "seconds.json"
        self._made = self._records_made()
        try:
            self._known = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._known = {}

    def left(self) -> str:
        """How long the rest takes, such as "about 4 min left"; "" at the end of a run, or where that is not known."""
        ahead = [job for job in self._jobs if not job.seconds]
        if not ahead or self._records_made() != self._made or any(self._last(job) is None for job in ahead):
            return ""
        now = time.monotonic()
        seconds = [max(0.0, self._last(job) - (now - job.started if job.started else 0)) for job in ahead]
        return f"about {in_words(side_by_side(seconds, self._at_once))} left"

    def keep(self) -> None:
        """After a whole run: remember its seconds, if it made nothing."""
        if self._records_made() == self._made:
            now = {job.name: {"seconds": job.seconds, "of": self._of(job)} for job in self._jobs}
            self._path.write_text(json.dumps(self._known | now, indent=1) + "\n")

    def _of(self, job: Job) -> list:
        return [self._at_once, job.parameters, str(job.store)]

    def _last(self, job: Job) -> float | None:
        known = self._known.get(job.name)
        return known["seconds"] if known and known["of"] == self._of(job) else None

    def _records_made(self) -> int:
        """A number that grows whenever something is made: each time leaves a record of what it used."""
        tables = [Store(store).table("usage", {}).path for store in {job.store for job in self._jobs}]
        return sum(path.stat().st_size for path in tables if path.exists())


def side_by_side(seconds: Sequence[float], at_once: int) -> float:
    """When the last of these ends, if each starts as soon as fewer than at_once run, in this order."""
    ends = [0.0] * at_once
    for one in seconds:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def in_words(seconds: float) -> str:
    """Rounded as a forecast should be: "20 s", "4 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
