"""The compute-optimal choice: the best strategy for each difficulty and budget (arXiv 2408.03314, section 3).

theta*(q, N), the strategy that maximises the expected accuracy on question q under budget N, is approximated for each
quintile of difficulty. Choosing and measuring on the same problems, as the writeup seems to do, flatters the choice;
measuring on the other half does not. Accuracy is an array (methods, P, budgets) of values in [0, 1]; NaN is a budget
that a method has no accuracy at, for all problems alike: it is never chosen there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tts import strategies
from tts.difficulty import QUINTILES, place
from tts.errors import InputError
from tts.policy import Policy
from tts.prm import StepScorer
from tts.problems import Problem
from tts.reductions import REDUCTIONS, reduce_scores
from tts.tree import Search

T = TypeVar("T")

METHODS = ("majority", "best_of_n_weighted", "beam_search", "dvts")  # ties go to the first, which is the cheapest


def choose(accuracy: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """theta*: the best method's index for each quintile and budget, (5, budgets); ties go to the first method."""
    accuracy = np.asarray(accuracy, float)
    if accuracy.shape[1] != len(quintile):
        raise InputError(f"accuracy is of {accuracy.shape[1]} problems and quintile of {len(quintile)}: the same ones")
    for q in QUINTILES:
        if not (quintile == q).any():
            raise InputError(f"quintile {q} has no problems: give more problems")
    return np.stack([_best(accuracy[:, quintile == q]) for q in QUINTILES])


def _best(accuracy: np.ndarray) -> np.ndarray:
    """The index of the method with the highest mean at each budget, (budgets,); NaN is below everything."""
    mean = accuracy.mean(axis=1)
    return np.where(np.isnan(mean), -np.inf, mean).argmax(axis=0)


def follow(choice: np.ndarray, accuracy: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """Accuracy (P, budgets) of doing with each problem what the choice says for its quintile."""
    methods = choice[quintile - 1]  # (P, budgets)
    return np.take_along_axis(accuracy, methods[None], axis=0)[0]


def in_sample(accuracy: np.ndarray, quintile: np.ndarray) -> np.ndarray:
    """Chosen and measured on the same problems, (P, budgets): too good by what the choice fits of the noise."""
    return follow(choose(accuracy, quintile), accuracy, quintile)


def cross_fitted(accuracy: np.ndarray, quintile: np.ndarray, *, splits: int = 100, seed: int = 0) -> np.ndarray:
    """Chosen on one half and measured on the other, swapped, averaged over many random splits: (P, budgets).

    The paper's two folds. The halves are drawn within quintiles, so that each has problems of all of them.
    """
    total = np.zeros(accuracy.shape[1:])
    for fold in _folds(quintile, splits=splits, seed=seed):
        for measured in (fold, ~fold):
            choice = choose(accuracy[:, ~measured], quintile[~measured])
            total[measured] += follow(choice, accuracy[:, measured], quintile[measured])
    return total / splits


def best_single(accuracy: np.ndarray, quintile: np.ndarray, *, splits: int = 100, seed: int = 0) -> np.ndarray:
    """The best single method at each budget by the same rule, (P, budgets): chosen on one half, measured on the other.

    The same splits as cross_fitted's, so that the two can be compared: a choice must not win because its rival was not
    allowed to choose, nor lose because the rival was chosen on the problems that it is measured on.
    """
    total = np.zeros(accuracy.shape[1:])
    for fold in _folds(quintile, splits=splits, seed=seed):
        for measured in (fold, ~fold):
            method = _best(accuracy[:, ~measured])  # (budgets,)
            total[measured] += np.take_along_axis(accuracy[:, measured], method[None, None], axis=0)[0]
    return total / splits


def per_problem(accuracy: np.ndarray) -> np.ndarray:
    """The best method for each single problem in hindsight, (P, budgets): an upper bound that no rule can follow."""
    return np.fmax.reduce(accuracy)


def widths_of(width: int, others: str) -> list[int]:
    """The widths M of a wider choice: width first, then those that others lists, such as "2, 8"; it may be empty."""
    words = _listed("other_widths", others)
    if not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise InputError(f'other_widths is "{others}": give whole numbers of 1 or more, such as "2, 8", or nothing')
    return _once("other_widths", width, [int(word) for word in words])


def reductions_of(reduction: str, others: str) -> list[str]:
    """The reductions of a wider choice: reduction first, then those that others lists (tts.reductions)."""
    words = _listed("other_reductions", others)
    for word in words:
        if word not in REDUCTIONS:
            raise InputError(f"other_reductions has {word!r}: choose from {', '.join(REDUCTIONS)}, or give nothing")
    return _once("other_reductions", reduction, words)


def _listed(name: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if not all(words):
        raise InputError(f'{name} is "{text}": there is nothing between two commas')
    return words


def _once(name: str, first: T, others: list[T]) -> list[T]:
    """first, then the others; that they name first too does no harm, a value twice is a slip."""
    for value in others:
        if others.count(value) > 1:
            raise InputError(f"{name} has {value} twice: name each once")
    return [first, *(value for value in others if value != first)]


def _folds(quintile: np.ndarray, *, splits: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = [int((quintile == q).sum()) for q in QUINTILES]
    if min(sizes) < 2:
        raise InputError(f"n_problems: a quintile has {min(sizes)} problem(s), two folds need 2 of each: at least 10")
    for _ in range(splits):
        fold = np.zeros(len(quintile), bool)
        for q in QUINTILES:
            members = rng.permutation(np.flatnonzero(quintile == q))
            fold[members[: len(members) // 2]] = True
        yield fold


@dataclass(frozen=True)
class Plan:
    """What to do with a new problem: fitted on problems with known answers, followed without."""

    probe: int  # samples that estimate the difficulty
    edges: tuple[float, ...]  # mean PRM score between quintiles 1|2, 2|3, 3|4, 4|5, falling
    budgets: tuple[int, ...]
    methods: tuple[tuple[str, ...], ...]  # of METHODS: by quintile, by budget

    def method(self, ease: float, budget: int) -> str:
        """What the plan says for a problem with this mean PRM score."""
        if budget not in self.budgets:
            raise InputError(f"budget is {budget}: the plan was fitted for {', '.join(map(str, self.budgets))}")
        return self.methods[place(ease, np.array(self.edges)) - 1][self.budgets.index(budget)]


def fit_plan(
    accuracy: np.ndarray, quintile: np.ndarray, *, edges: Sequence[float], budgets: Sequence[int], probe: int
) -> Plan:
    """The plan that choose() makes of these problems, with the edges of a difficulty that was estimated by `probe`."""
    chosen = choose(accuracy, quintile)
    methods = tuple(tuple(METHODS[i] for i in row) for row in chosen)
    return Plan(probe, tuple(map(float, edges)), tuple(budgets), methods)


async def compute_optimal(
    problem: Problem,
    policy: Policy,
    prm: StepScorer,
    *,
    plan: Plan,
    budget: int,
    width: int = 4,
    depth: int = 40,
    reduction: str = "last",
    temperature: float = 0.8,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    seed: int,
) -> Search:
    """Spend a budget of N solutions as the plan says, the estimate of the difficulty paid from it.

    1. Draw plan.probe samples and score them; their mean final score is the difficulty, no label is used.
    2. Where the plan says majority or Best-of-N, the probe's samples are the first of the N. A search can't use them:
       it runs with N - probe solutions, and its record counts the probe's tokens too.
    The paper leaves the cost of this estimate out; here it is counted. probe must be smaller than budget.
    """
    if not 1 <= plan.probe < budget:
        raise InputError(f"budget is {budget}: it must be above the plan's probe, {plan.probe} samples")
    plan.method(1.0, budget)  # what is wrong is said before anything is drawn
    reduce_scores([1.0], reduction)
    strategies.check_sampling(width=width, depth=depth, temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    drawing = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed}
    probe = await strategies.best_of_n(problem, policy, prm, n=plan.probe, **drawing)
    ease = float(np.mean([reduce_scores(solution.scores, reduction) for solution in probe.solutions]))
    method = plan.method(ease, budget)
    if method in ("majority", "best_of_n_weighted"):
        if method == "majority":
            rest = await strategies.majority(problem, policy, n=budget, first=plan.probe, **drawing)
        else:
            rest = await strategies.best_of_n(problem, policy, prm, n=budget, first=plan.probe, **drawing)
        return replace(
            rest,
            solutions=probe.solutions + rest.solutions,
            ended=probe.ended + rest.ended,
            generated=probe.generated + rest.generated,
            scored=probe.scored + rest.scored,
        )
    run = {"beam_search": strategies.beam_search, "dvts": strategies.dvts}[method]
    found = await run(problem, policy, prm, n=budget - plan.probe, width=width, depth=depth, **drawing)
    return replace(found, generated=found.generated + probe.generated, scored=found.scored + probe.scored)
