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

from tts.engines import choose_engine
from tts.prm import StepScorer, open_prm
from tts.problems import load_problems
from tts.tree import split_steps

LENGTHS = (4, 8, 16)  # steps
SOLUTIONS = 64
ROW = "{:13} {:>5} {:>12} {:>10} {:>6} {:>13} {:>8} {:>6}"


def main() -> None:
    """Print one table: tokens that the model read and seconds, by engine, length and way."""
    model = os.environ.get("TTS_BENCH_PRM") or "prm"
    engines = sorted({"transformers", choose_engine("auto")[0]})  # vLLM where it can run
    tasks = {length: make_solutions(SOLUTIONS, length) for length in LENGTHS}
    print(f"{model}: {SOLUTIONS} solutions grow step by step; ratio: whole prefix / new step")
    print(ROW.format("engine", "steps", "tokens: new", "whole", "ratio", "seconds: new", "whole", "ratio"))
    for engine in engines:
        new, whole = (open_prm(model, engine=engine, prefix_cache=cached) for cached in (True, False))
        for scorer in (new, whole):
            asyncio.run(grow(scorer, [("Warm up", ["1"])]))  # loads the model
        for length, solutions in tasks.items():
            tokens, seconds = measure(grow, new, solutions)
            more, longer = measure(grow, whole, solutions)
            ratios = f"{more / tokens:.2f}", f"{longer / seconds:.2f}"
            numbers = f"{tokens:,}", f"{more:,}", ratios[0], f"{seconds:.2f}", f"{longer:.2f}", ratios[1]
            print(ROW.format(engine, length, *numbers), flush=True)
        count, finished = 4 * SOLUTIONS, make_solutions(4 * SOLUTIONS, 6)
        tokens, seconds = measure(at_once, new, finished)
        print(
            f"{engine}: {count} whole solutions of 6 steps at once, {tokens:,} tokens, {count / seconds:,.0f} a second"
        )
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


async def grow(scorer: StepScorer, solutions: Sequence[tuple[str, list[str]]]) -> None:
    """Score every step as soon as it is there, all solutions at once."""

    async def one(problem: str, steps: list[str]) -> None:
        scores: list[float] = []
        for k in range(1, len(steps) + 1):
            scores = await scorer.score(problem, steps[:k], known=scores)

    await asyncio.gather(*(one(problem, steps) for problem, steps in solutions))


async def at_once(scorer: StepScorer, solutions: Sequence[tuple[str, list[str]]]) -> None:
    """Score whole solutions, all at once."""
    await asyncio.gather(*(scorer.score(problem, steps) for problem, steps in solutions))


def measure(work: Callable, scorer: StepScorer, solutions: Sequence[tuple[str, list[str]]]) -> tuple[int, float]:
    """(tokens read, seconds) of one run."""
    tokens, began = scorer.counts["scored"], time.perf_counter()
    asyncio.run(work(scorer, solutions))
    return scorer.counts["scored"] - tokens, time.perf_counter() - began
