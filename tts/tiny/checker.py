"""Exact step checking: a step is right if the problem's work allows it after the right steps before it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .problems import WORDS, Instance, boxed, worded
from .work import State

VERSION = 2  # of what check() says: raise it with every change of a verdict, for exact scores are stored under it
MATH = re.compile(r"\$([^$]*)\$")
BOXED = re.compile(r"\\boxed\{(.*)\}")


def content(step: str) -> str | None:
    """The mathematics of a step, or None where it has not exactly one formula."""
    found = MATH.findall(step)
    return found[0].strip() if len(found) == 1 else None


def check(problem: Instance, steps: Sequence[str]) -> list[bool]:
    """Whether each step is right: the first wrong one makes all that follow it wrong.

    A step is right if the problem's work allows its formula after the steps before it; the boxed one, if the work is
    done and its answer is a known form of the problem's. The words around a formula are free.
    """
    labels: list[bool] = []
    state: State | None = problem.work.start
    for step in steps:
        formula = content(step)
        box = BOXED.fullmatch(formula) if formula else None
        moves = problem.work.moves(state)
        if box:
            good, state = not moves and box[1] in problem.answers, None
        else:
            good, state = formula in moves, moves.get(formula or "")
        labels.append(good)
        if state is None:
            break
    return labels + [False] * (len(steps) - len(labels))


def possible(problem: Instance, steps: Sequence[str]) -> list[str]:
    """Every right way to write the next step, given right steps so far."""
    state = problem.work.start
    for step in steps:
        state = problem.work.moves(state)[content(step) or ""]
    moves = problem.work.moves(state)
    return [worded(word, f) for f in moves for word in WORDS] or [boxed(answer) for answer in problem.answers]


def solved(problem: Instance, steps: Sequence[str]) -> bool:
    """Whether a solution reaches the right answer in its last step, however it got there."""
    formula = content(steps[-1]) if steps else None
    box = BOXED.fullmatch(formula) if formula else None
    return bool(box) and box[1] in problem.answers


def steps_of(text: str) -> list[str]:
    """The steps of a solution: its parts between blank lines."""
    return [part.strip() for part in text.split("\n\n") if part.strip()]
