"""What a step scorer is: a process reward model (PRM) that says how likely each step of a solution is to be right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class StepScorer(Protocol):
    """The one interface that the strategies know; a scripted fake implements it in the tests."""

    name: str  # what figures and records call it
    fingerprint: str  # of the weights, tokenizer and format: two scorers with the same one give the same scores

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """One score in [0, 1] for each step, given the problem and all earlier steps.

        known holds the scores of the first len(known) steps, from an earlier call: they come back as given and only the
        rest is computed. Raises EngineError when the engine fails.
        """

    async def close(self) -> None:
        """Let go of the model; the next score() loads it again."""
