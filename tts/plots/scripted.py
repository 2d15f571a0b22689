"""A scripted policy and scorer, with which the real strategies make the searches that figure 3 draws."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tts.policy import Completion, Sampling
from tts.problems import Problem
from tts.tree import Search

DEPTH = 4  # steps of every solution
SCRIPT = 6  # seed of the scores, chosen so that the three searches show their differences


class _Policy:
    """Each step is one token, a number drawn with the request's seed; the turn ends after DEPTH steps."""

    name, context = "scripted", 1000

    def prompt(self, problem: str) -> tuple[int, ...]:
        return (0,)

    async def sample(self, prefix: Sequence[int], sampling: Sampling, *, stop: str | None = None) -> Completion:
        draw = random.Random(sampling.seed)
        ids = tuple(draw.randrange(1, 1000) for _ in range(1 if stop else DEPTH))
        ended = len(prefix) + len(ids) > DEPTH
        text = "\n\n".join(map(str, ids)) + ("" if ended else "\n\n")
        return Completion(ids, text, 0.0, "end" if ended else "stop")


class _Scorer:
    """A step's score is in [0, 1] and depends on the step and all steps before it."""

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        texts = [step.strip() for step in steps]
        return [random.Random(f"{SCRIPT} {texts[: k + 1]}").random() for k in range(len(texts))]


def scripted_search(strategy: Callable[..., Awaitable[Search]], *, n: int) -> Search:
    """Run a strategy with the scripted policy and scorer, in a thread: a notebook's own event loop is running."""
    search = strategy(Problem(id="diagram", text="problem", answer=""), _Policy(), _Scorer(), n=n, sampling=Sampling())
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, search).result()
