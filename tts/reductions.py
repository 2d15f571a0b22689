"""One number for a solution from the scores of its steps. Pure: numbers in, number out.

A solution without steps (a blank completion) has shown nothing: it scores 0.0 under every reduction, the lowest there
is, also under prod, whose empty product would be 1.0 and would win every comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tts.errors import InputError

REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],  # the writeup's choice: the last score is given in view of all earlier steps
    "min": min,  # a chain is as strong as its weakest step
    "prod": math.prod,  # the chance that every step is right, if the scores were independent chances
    "mean": lambda scores: sum(scores) / len(scores),
}


def reduce_scores(scores: Sequence[float], how: str) -> float:
    """Reduce the step scores of one solution, each in [0, 1], to one score in [0, 1].

    how: "last", "min", "prod" or "mean". No scores: 0.0. Source: the writeup, "Best-of-N"; arXiv 2408.03314 for "last".
    """
    if how not in REDUCTIONS:
        raise InputError(f"reduction is {how!r}: choose one of {', '.join(REDUCTIONS)}")
    return float(REDUCTIONS[how](scores)) if len(scores) else 0.0
