"""The vLLM engine as a step scorer, for large models: the shared host on this machine, or vLLM's servers.

Where a score is the probability of one of two answers, it is a request for one token at the score position, with the
log-probabilities of both. vLLM's prefix cache holds what comes before, in whole blocks. (Prompt log-probabilities would
not use that cache.) A head with classes is a pooling model for vLLM: one request for all steps of a solution.
"""

from __future__ import annotations

import math

from tts.models.checkpoint import Checkpoint
from tts.models.engines import Engines, OnEngines
from tts.models.formats import Format, Layout, TokenHead
from tts.models.scoring import ModelScorer, check_mass


class VllmScorer(OnEngines, ModelScorer):
    """Scores through vLLM. The first score() starts the shared host if none is running and no server is named."""

    engine = "vllm"

    def __init__(self, checkpoint: Checkpoint, prm_format: Format, *, engines: Engines, check_policy: bool) -> None:
        self._engines = engines
        self._check_policy = check_policy
        self._head = prm_format.head
        super().__init__(checkpoint, prm_format, provenance=engines.provenance)
        self.provenance = engines.provenance  # a server's is complete once it was reached
        if isinstance(self._head, TokenHead):
            self.context -= 1  # vLLM has to sample one token

    async def compute(self, layout: Layout, first: int, shared: int) -> list[float]:
        """See ModelScorer.compute."""
        if isinstance(self._head, TokenHead):
            return await self._ask_answers(layout, first, shared)
        return await self._ask_classes(layout, first, shared)

    async def _ask_classes(self, layout: Layout, first: int, shared: int) -> list[float]:
        ids, positions = list(layout.ids), layout.positions[first:]
        logits, cached = await self._engines.request("classify", ids, True, problem=ids[:shared])
        if cached > positions[0]:  # another solution with these steps is under way, and the cache holds no logits
            logits, cached = await self._engines.request("classify", ids, False, problem=ids[:shared])
        self.count(len(ids), cached)
        return [_sigmoid(good - bad) for bad, good in (logits[position - cached] for position in positions)]

    async def _ask_answers(self, layout: Layout, first: int, shared: int) -> list[float]:
        """Scores from the log-probabilities of two answers.

        All positions are sent at once, in ascending order: each then finds the one before it in the cache, up to the
        last whole block. Sent one after the other, they would find it evicted by what came in between.
        """
        head = self._head
        prefixes = [list(layout.ids[: position + 1]) for position in layout.positions[first:]]
        answers = await self._engines.requests(
            "score", [(ids, head.good, head.bad) for ids in prefixes], problem=layout.ids[:shared]
        )
        return [self._read(len(ids), *answer) for ids, answer in zip(prefixes, answers, strict=True)]

    def _read(self, length: int, logprobs: dict[int, float], cached: int) -> float:
        """The score from the log-probabilities of the two answers."""
        good, bad = logprobs[self._head.good], logprobs[self._head.bad]
        self.count(length, cached)
        if self._check_policy:
            check_mass(self.checkpoint, math.exp(good) + math.exp(bad))
            self._check_policy = False
        return _sigmoid(good - bad)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(min(-x, 700.0)))
