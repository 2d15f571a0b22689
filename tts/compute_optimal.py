"""The compute-optimal strategy in a form that can be deployed: a fitted plan, followed without labels.

The plan says which method to use for each difficulty and budget (arXiv 2408.03314, section 3). It is fitted by
tts.analysis.choice on problems with known answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from tts import strategies
from tts.errors import InputError, check_counts
from tts.policy import Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem
from tts.reductions import reduce_scores
from tts.tree import Search

METHODS = ("majority", "best_of_n_weighted", "beam_search", "dvts")  # ties go to the first, which is the cheapest
QUINTILES = (1, 2, 3, 4, 5)  # of difficulty; 1 is the easiest


def place(ease: float, edges: Sequence[float]) -> int:
    """The quintile of a new problem by these falling edges; on an edge the easier one."""
    return 1 + sum(ease < edge for edge in edges)


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
        return self.methods[place(ease, self.edges) - 1][self.budgets.index(budget)]


async def compute_optimal(
    problem: Problem,
    policy: Policy,
    prm: StepScorer,
    *,
    plan: Plan,
    budget: int,
    beam_width: int = 4,
    depth: int = 40,
    reduction: str = "last",
    sampling: Sampling = Sampling(),
) -> Search:
    """Spend a budget of N solutions as the plan says, the estimate of the difficulty paid from it.

    Where the plan says majority or Best-of-N, the probe's samples are the first of the N. A search cannot use them: it
    runs with N - probe solutions, and its record counts the probe's tokens too. The paper leaves the cost of this
    estimate out; here it is counted. probe must be smaller than budget.
    """
    if not 1 <= plan.probe < budget:
        raise InputError(f"budget is {budget}: it must be above the plan's probe, {plan.probe} samples")
    plan.method(1.0, budget)  # what is wrong is said before anything is drawn
    reduce_scores([1.0], reduction)
    check_counts(beam_width=beam_width, depth=depth)

    # 1. Draw plan.probe samples and score them; their mean final score is the difficulty, no label is used.
    probe = await strategies.best_of_n(problem, policy, prm, n=plan.probe, sampling=sampling)
    ease = fmean(reduce_scores(solution.scores, reduction) for solution in probe.solutions)

    # 2. Do what the plan says for this difficulty and budget.
    method = plan.method(ease, budget)
    if method in ("beam_search", "dvts"):
        search = {"beam_search": strategies.beam_search, "dvts": strategies.dvts}[method]
        found = await search(
            problem, policy, prm, n=budget - plan.probe, beam_width=beam_width, depth=depth, sampling=sampling
        )
        return replace(found, generated=found.generated + probe.generated, scored=found.scored + probe.scored)
    if method == "majority":
        rest = await strategies.majority(problem, policy, n=budget, first=plan.probe, sampling=sampling)
    else:
        rest = await strategies.best_of_n(problem, policy, prm, n=budget, first=plan.probe, sampling=sampling)
    return replace(
        rest,
        solutions=probe.solutions + rest.solutions,
        ended=probe.ended + rest.ended,
        generated=probe.generated + rest.generated,
        scored=probe.scored + rest.scored,
    )
