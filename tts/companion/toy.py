"""A problem small enough to search by hand: every step that can be drawn is written down, in order, with its score.

Policy and Scorer let the module's own searches run on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tts.policy import Completion, Sampling
from tts.problems import Problem
from tts.tree import STEP_END

PROBLEM = Problem("toy", "Work out $(2 + 3) \\cdot 4 - 6$.", "14")

# Step -> the steps that are drawn after it, in order, with the verifier's scores. "" is the problem; a step that is no
# key ends its solution. The verifier likes 3*4=12: it is a right product, only not the one that was asked for.
TREE: dict[str, list[tuple[str, float]]] = {
    "": [("2+3=5", 0.6), ("2+3=6", 0.3), ("3*4=12", 0.8), ("2*4=8", 0.5)],
    "2+3=5": [("5*4=20", 0.65), ("5*4=24", 0.2)],
    "3*4=12": [("2+12=14", 0.75), ("12-6=6", 0.7)],
    "5*4=20": [("20-6=14", 0.9), ("20-6=16", 0.3)],
    "2+12=14": [("14-6=8", 0.6), ("14-6=7", 0.1)],
    "12-6=6": [("2+6=8", 0.6), ("2-6=-4", 0.1)],
    **{"2+3=6": [], "2*4=8": [], "5*4=24": []},
}
RIGHT = {"2+3=5", "5*4=20", "20-6=14"}


class Policy:
    """Draws the written-down steps in their order; a token is a letter. See tts.policy.Policy."""

    name, context = "toy", 1000

    def __init__(self, tree: dict[str, list[tuple[str, float]]] = TREE) -> None:
        self.tree = tree
        self.draws = {step: iter(after) for step, after in tree.items()}

    def prompt(self, problem: str) -> tuple[int, ...]:
        """The problem is nothing but the root of the tree."""
        return ()

    async def sample(self, prefix: Sequence[int], sampling: Sampling, *, stop: str | None = None) -> Completion:
        """The next step that is written down after the last one of prefix."""
        *_, last = "".join(map(chr, prefix)).strip().split(STEP_END)
        step, _ = next(self.draws[last])
        goes_on = step in self.tree
        text = step + STEP_END * goes_on
        return Completion(tuple(map(ord, text)), text, 0.0, "stop" if goes_on else "end")


class Scorer:
    """Gives each step the score that stands beside it. See tts.prm.StepScorer."""

    name = "toy"

    def __init__(self, tree: dict[str, list[tuple[str, float]]] = TREE) -> None:
        self.scores = {step: score for after in tree.values() for step, score in after}

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """One score a step, the known ones as they are."""
        return [*known, *(self.scores[step.strip()] for step in steps[len(known) :])]


def right(steps: Sequence[str]) -> list[bool]:
    """Whether each step of a solution is right: only one way leads to the answer."""
    return [step.strip() in RIGHT for step in steps]
