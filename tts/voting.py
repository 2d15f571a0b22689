"""Three ways to choose one answer from a problem's solutions. Pure: answers' keys and scores in, one key out.

A solution without an answer (key None: no box, truncated, failed) has no vote and is never chosen. Ties go to the
answer that comes first in the order of the draw. No solution with an answer: None, which is graded as wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def majority(keys: Sequence[Hashable | None]) -> Hashable | None:
    """The most frequent answer (self-consistency): argmax over a of the number of i with a_i = a."""
    return weighted(keys, [1.0] * len(keys))


def weighted(keys: Sequence[Hashable | None], scores: Sequence[float]) -> Hashable | None:
    """Weighted Best-of-N: argmax over answers a of the sum over solutions i of 1[a_i = a] * RM(p, s_i).

    scores: one a solution, its step scores reduced, at least 0. Source: the writeup, "Weighted Best-of-N".
    """
    totals: dict[Hashable, float] = {}  # in order of first appearance, so that max() settles ties as stated
    for key, score in zip(keys, scores, strict=True):
        if key is not None:
            totals[key] = totals.get(key, 0.0) + score
    return max(totals, key=totals.get, default=None)


def vanilla(keys: Sequence[Hashable | None], scores: Sequence[float]) -> Hashable | None:
    """Vanilla Best-of-N: the answer of the one solution with the highest score, among those that have an answer."""
    answered = [(score, key) for key, score in zip(keys, scores, strict=True) if key is not None]
    return max(answered, key=lambda pair: pair[0], default=(0.0, None))[1]
