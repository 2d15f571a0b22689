"""What the step scorers of all engines share (see tts.prm.StepScorer): everything except the model's forward pass.

The score of a (problem, steps) prefix is computed once; later requests get the remembered score, or wait for it. A step
of white space alone is not shown to the model and gets the score of the step before it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

from tts.errors import ContextExceeded, InputError
from tts.models.checkpoint import Checkpoint
from tts.models.flops import attended
from tts.models.formats import Format, Layout

REMEMBERED = 1 << 18  # scores kept in memory, about 50 MB
PROBLEMS = 1 << 12  # problems whose beginnings are kept
LEAST_MASS = 0.5  # of the probability on a PRM's two answers; a trained PRM puts nearly all of it there
OPENINGS = (
    "1",
    "x",
    "a",
    "So",
    "Step",
    "##",
    "$",
)  # steps begin in many ways, and so does their first token


class ModelScorer:
    """Scores steps with a model; an engine adds compute(), close() and progress."""

    engine: str

    def __init__(self, checkpoint: Checkpoint, prm_format: Format, *, provenance: dict[str, str]) -> None:
        self.checkpoint = checkpoint
        self.format = prm_format
        self.name = checkpoint.name
        # The context is part of it, because it decides which solutions are too long to be scored.
        self.fingerprint = f"{checkpoint.fingerprint}:{prm_format.name}:{checkpoint.context}"
        self.context = checkpoint.context
        self.provenance = {"engine": self.engine, **provenance}
        # Steps: asked for, remembered. Tokens: read by the model (scored), taken from the engine's cache (cached).
        self.counts: Counter[str] = Counter(steps=0, remembered=0, scored=0, cached=0, attended=0)
        self._scores: OrderedDict[bytes, float] = OrderedDict()
        self._beginning = lru_cache(maxsize=PROBLEMS)(self._beginning)
        self._under_way: dict[tuple[bytes, int], asyncio.Task] = {}

    @property
    def progress(self) -> object:
        """See ModelPolicy.progress."""
        raise NotImplementedError

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """See StepScorer.score.

        Raises ContextExceeded if problem and steps are longer than the model's context; nothing is ever cut off.
        """
        texts = trimmed(steps, known)
        if len(known) == len(texts):
            return list(known)
        shown = [text for text in texts if text]
        new = range(sum(map(bool, texts[: len(known)])), len(shown))  # the steps in shown without a known score
        keys = _prefix_keys(problem, shown)
        missing = next((i for i in new if keys[i] not in self._scores), len(shown))
        self.counts.update(steps=len(new), remembered=missing - new.start if new else 0)
        found = [self._recall(keys[i]) for i in range(new.start, missing)]
        if missing < len(shown):
            found += await self._shared(problem, shown, keys, missing)
        return filled(texts, known, found)

    def _recall(self, key: bytes) -> float:
        self._scores.move_to_end(key)
        return self._scores[key]

    async def _shared(self, problem: str, steps: list[str], keys: list[bytes], first: int) -> list[float]:
        """The scores of steps[first:], computed once for all requests that wait for them."""
        request = keys[-1], first
        task = self._under_way.get(request)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.get_running_loop().create_task(self._fresh(problem, steps, keys, first))
            self._under_way[request] = task
            task.add_done_callback(lambda done: self._forget(request, done))
        return await asyncio.shield(task)  # cancelling one request leaves the others their answer

    def _forget(self, request: tuple[bytes, int], done: asyncio.Task) -> None:
        if self._under_way.get(request) is done:
            del self._under_way[request]
        if not done.cancelled():
            done.exception()  # retrieve it, or asyncio complains if all requests were cancelled

    async def _fresh(self, problem: str, steps: list[str], keys: list[bytes], first: int) -> list[float]:
        layout = self.format.layout(problem, steps)
        if len(layout.ids) > self.context:
            raise ContextExceeded(
                f"{self.checkpoint.label}: this solution has {len(layout.ids)} tokens with its problem, "
                f"the context {self.context}: it can't be scored"
            )
        scores = await self.compute(layout, first, common(self._beginning(problem), layout.ids))
        self.checkpoint.check_numbers(scores, self.provenance["dtype"])
        for key, score in zip(keys[first:], scores, strict=True):
            self._scores[key] = score
        while len(self._scores) > REMEMBERED:
            self._scores.popitem(last=False)
        return scores

    def _beginning(self, problem: str) -> tuple[int, ...]:
        """The tokens that all solutions of the problem begin with."""
        first, *others = (self.format.layout(problem, [step]).ids for step in OPENINGS)
        return first[: min(common(first, other) for other in others)]

    def count(self, length: int, cached: int) -> None:
        """Count a sequence of this length that the model has read, except its first tokens, which were cached."""
        self.counts["scored"] += length - cached
        self.counts["cached"] += cached
        self.counts["attended"] += attended(length - cached, cached)

    async def compute(self, layout: Layout, first: int, shared: int) -> list[float]:
        """The scores at layout.positions[first:], each from the tokens up to its position.

        shared: the number of first tokens that every solution of the problem has.
        """
        raise NotImplementedError


def trimmed(steps: Sequence[str], known: Sequence[float]) -> list[str]:
    """The steps without white space at their ends. Raises InputError if known does not fit, or the first is blank."""
    if len(known) > len(steps):
        raise InputError(f"known has {len(known)} scores for {len(steps)} steps: give those of the first steps only")
    texts = [step.strip() for step in steps]
    if len(known) < len(texts) and not texts[0]:
        raise InputError("steps[0] is white space alone: join it to the step after it (tts.tree.split_steps does)")
    return texts


def filled(texts: Sequence[str], known: Sequence[float], found: Iterable[float]) -> list[float]:
    """All scores: the known ones, then those found for the other steps; a blank step has that of the step before it."""
    scores, news = list(known), iter(found)
    for text in texts[len(known) :]:
        scores.append(next(news) if text else scores[-1])
    return scores


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _prefix_keys(problem: str, steps: Sequence[str]) -> list[bytes]:
    """A hash for each step, of the problem and all steps up to it."""
    keys, key = [], problem.encode()
    for step in steps:
        key = blake2b(step.encode(), key=blake2b(key, digest_size=32).digest(), digest_size=16).digest()
        keys.append(key)
    return keys


def check_mass(checkpoint: Checkpoint, mass: float) -> None:
    """Raise InputError for a plain policy, which puts little probability on the two answers. NaN passes here."""
    if mass < LEAST_MASS:
        raise InputError(
            f"{checkpoint.label} puts {mass:.2g} of its probability on the two answers, where a PRM puts nearly all: "
            "it is a plain policy or a PRM in another format: give a PRM, or name its format with format="
        )
