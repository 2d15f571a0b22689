"""A policy and a scorer that follow a script, so that a diagram is drawn from a real search of the real strategies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tts.policy import Completion, Sampling
from tts.problems import Problem
from tts.tree import Search

DEPTH = 4  # steps of every solution
SCRIPT = 6  # which of all scripts; with this one the three searches show what tells them apart


class _Policy:
    """Writes steps of one token each, a number that is the request's own; after DEPTH of them the turn ends."""

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
    """A score in [0, 1] for each step, which depends on it and all steps before it."""

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        texts = [step.strip() for step in steps]
        return [random.Random(f"{SCRIPT} {texts[: k + 1]}").random() for k in range(len(texts))]


def scripted_search(strategy: Callable[..., Awaitable[Search]], *, n: int) -> Search:
    """The search of a strategy with these two, also where an event loop is running, as in a notebook."""
    search = strategy(Problem(id="diagram", text="problem", answer=""), _Policy(), _Scorer(), n=n, sampling=Sampling())
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, search).result()
