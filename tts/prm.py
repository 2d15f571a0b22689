"""What a step scorer is: a process reward model (PRM) that says how likely each step of a solution is to be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class StepScorer(Protocol):
    """The one interface that the strategies know; a scripted fake implements it in the tests."""

    name: str  # what figures and records call it
    fingerprint: str  # of weights, tokenizer and format: scorers with equal fingerprints give equal scores
    provenance: Mapping[str, str]  # engine, dtype, version: recorded with results, no part of their keys

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """One score in [0, 1] for each step, given the problem and all earlier steps.

        known holds the scores of the first len(known) steps, from an earlier call: they are returned as given and only
        the rest is computed. White space at a step's ends means nothing; a step of white space alone has the score of
        the step before it. Raises EngineError when the engine fails, and ContextExceeded, a kind of it, when the
        solution is longer than the scorer's context.
        """

    async def close(self) -> None:
        """Let go of the model; the next score() loads it again."""
