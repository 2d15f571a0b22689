"""What scoring costs: each new step against the whole prefix again, and whole solutions, with either engine.

The solutions of many problems grow together, one step at a time, as the beams of a search do. "new step" reads only the
new tokens (keys and values of the earlier ones are kept); "whole prefix" reads everything again at each step. The
steps are those of the embedded problems' own solutions, one after the other, until a solution is long enough.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from tts.models.open import choose_engine, open_prm
from tts.prm import StepScorer
from tts.problems import load_problems
from tts.tree import split_steps

LENGTHS = (4, 8, 16)  # steps
SOLUTIONS = 64
ROW = "{:13} {:>5} {:>12} {:>10} {:>6} {:>13} {:>8} {:>6} {:>7}"


def main() -> None:
    """Print one table: tokens that the model read, seconds and parity, by engine, length and way."""
    model = os.environ.get("TTS_BENCH_PRM") or "prm"
    engines = sorted({"transformers", choose_engine("auto")[0]})  # vLLM where it can run
    tasks = {length: make_solutions(SOLUTIONS, length) for length in LENGTHS}
    reference: dict[int, list[list[float]]] = {}
    print(f"{model}: {SOLUTIONS} solutions grow step by step; ratio: whole prefix / new step")
    print("parity: the largest difference to the scores of the first engine's whole prefixes")
    print(ROW.format("engine", "steps", "tokens: new", "whole", "ratio", "seconds: new", "whole", "ratio", "parity"))
    for engine in engines:
        new, whole = (open_prm(model, engine=engine, prefix_cache=cached) for cached in (True, False))
        for scorer in (new, whole):
            asyncio.run(grow(scorer, [("Warm up", ["1"])]))  # loads the model
        for length, solutions in tasks.items():
            tokens, seconds, scores = measure(grow, new, solutions)
            more, longer, again = measure(grow, whole, solutions)
            right = reference.setdefault(length, again)
            parity = max(abs(a - b) for rows in (scores, again) for x, y in zip(rows, right) for a, b in zip(x, y))
            numbers = f"{tokens:,}", f"{more:,}", f"{more / tokens:.2f}"
            times = f"{seconds:.2f}", f"{longer:.2f}", f"{longer / seconds:.2f}"
            print(ROW.format(engine, length, *numbers, *times, f"{parity:.0e}"), flush=True)
        count, finished = 4 * SOLUTIONS, make_solutions(4 * SOLUTIONS, 6)
        tokens, seconds, _ = measure(at_once, new, finished)
        speed = f"{count / seconds:,.0f} a second"
        print(f"{engine}: {count} whole solutions of 6 steps at once, {tokens:,} tokens, {speed}", flush=True)
        for scorer in (new, whole):
            asyncio.run(scorer.close())


def make_solutions(count: int, length: int) -> list[tuple[str, list[str]]]:
    """(problem, steps) pairs of exactly so many steps: a problem's own, then those of the problems after it."""
    problems = load_problems("tiny/dev")
    found = []
    for i in range(count):
        steps, at = [], i
        while len(steps) < length:
            steps += split_steps(problems[at % len(problems)].solution)
            at += 1
        # Numbered, so that none of them is remembered from another measurement.
        found.append((f"{problems[i % len(problems)].text} ({length}.{i})", steps[:length]))
    return found


Solutions = Sequence[tuple[str, list[str]]]


async def grow(scorer: StepScorer, solutions: Solutions) -> list[list[float]]:
    """Score every step as soon as it is there, all solutions at once."""

    async def one(problem: str, steps: list[str]) -> list[float]:
        scores: list[float] = []
        for k in range(1, len(steps) + 1):
            scores = await scorer.score(problem, steps[:k], known=scores)
        return scores

    return await asyncio.gather(*(one(problem, steps) for problem, steps in solutions))


async def at_once(scorer: StepScorer, solutions: Solutions) -> list[list[float]]:
    """Score whole solutions, all at once."""
    return await asyncio.gather(*(scorer.score(problem, steps) for problem, steps in solutions))


def measure(work: Callable, scorer: StepScorer, solutions: Solutions) -> tuple[int, float, list[list[float]]]:
    """(tokens read, seconds, scores) of one run."""
    tokens, began = scorer.counts["scored"], time.perf_counter()
    scores = asyncio.run(work(scorer, solutions))
    return scorer.counts["scored"] - tokens, time.perf_counter() - began, scores
