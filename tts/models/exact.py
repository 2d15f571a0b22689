"""The exact verifier: the step checker of the embedded problems as a step scorer, an upper bound that costs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache

from tts.errors import InputError
from tts.models.flops import NO_MODEL
from tts.models.scoring import filled, trimmed
from tts.problems import EMBEDDED, Problem
from tts.tiny.checker import VERSION, check
from tts.tiny.problems import Instance, benchmark

EXACT = "exact"  # the name that opens it


class ExactScorer:
    """Scores a step 1 if it and all steps before it are right (`tts.tiny.checker`), else 0.

    It has no model: no token is read, no FLOP is spent, and no solution is too long. Right solutions tie, and so do
    wrong ones; ties are settled by the order of the draw, as everywhere.
    """

    size = NO_MODEL
    provenance = {"engine": "checker"}

    def __init__(self, *, name: str = "", parameter: str = "prm_model", problems: Sequence[Problem] = ()) -> None:
        """problems: those that it will score. Raises InputError if any of them is not embedded."""
        self.name = name or EXACT
        self._parameter = parameter
        for problem in problems:
            self._instance(problem.text)

    @property
    def fingerprint(self) -> str:
        """A hash of what determines the scores: the checker's version, and the work and answers of all problems."""
        return _fingerprint()

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """See StepScorer.score. Raises InputError for a problem that is not embedded."""
        texts = trimmed(steps, known)
        right = check(self._instance(problem), [text for text in texts if text])
        return filled(texts, known, map(float, right[sum(map(bool, texts[: len(known)])) :]))

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _instance(self, text: str) -> Instance:
        if text not in _instances():
            known = ", ".join(EMBEDDED)
            raise InputError(
                f"{self._parameter}: exact can only score the embedded problems ({known}): name another verifier"
            )
        return _instances()[text]


def step_labels(problem: str, steps: Sequence[str]) -> list[bool] | None:
    """Whether each step is right, given the problem's text; None for a problem that is not embedded."""
    instance = _instances().get(problem)
    return check(instance, steps) if instance else None


@cache
def _instances() -> dict[str, Instance]:
    """All embedded problems by text, drawn anew with their work, which the frozen files lack; about a second."""
    return {one.text: one for name in EMBEDDED for one, _ in benchmark(name.removeprefix("tiny/"))}


@cache
def _fingerprint() -> str:
    made_of = [(one.text, repr(one.work), one.answers) for one in _instances().values()]
    return f"{EXACT}:{VERSION}:{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]}"
