"""Exact step checking: a step is right if it and all steps before it lie on one valid route of the problem."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .problems import Instance

MATH = re.compile(r"\$([^$]*)\$")
BOXED = re.compile(r"\\boxed\{(.*)\}")


def content(step: str) -> str | None:
    """The mathematics of a step, or None where it has not exactly one formula."""
    found = MATH.findall(step)
    return found[0].strip() if len(found) == 1 else None


def check(problem: Instance, steps: Sequence[str]) -> list[bool]:
    """Whether each step is right: the first wrong one makes all that follow it wrong.

    A step is right if its formula is the next one on a route of the problem that all earlier steps are on; the boxed
    one, if a route is complete and its answer is a known form of the problem's. The words around a formula are free.
    """
    labels: list[bool] = []
    alive = list(problem.routes)
    done = False
    for i, step in enumerate(steps):
        formula = content(step)
        box = BOXED.fullmatch(formula) if formula else None
        if box:
            good = not done and any(len(route) == i for route in alive) and box[1] in problem.answers
            done = True
        else:
            alive = [route for route in alive if len(route) > i and route[i] == formula]
            good = not done and bool(alive)
        labels.append(good)
        if not good:
            return labels + [False] * (len(steps) - len(labels))
    return labels


def solved(problem: Instance, steps: Sequence[str]) -> bool:
    """Whether a solution reaches the right answer in its last step, however it got there."""
    formula = content(steps[-1]) if steps else None
    box = BOXED.fullmatch(formula) if formula else None
    return bool(box) and box[1] in problem.answers


def steps_of(text: str) -> list[str]:
    """The steps of a solution: its parts between blank lines."""
    return [part.strip() for part in text.split("\n\n") if part.strip()]
