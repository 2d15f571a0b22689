"""The vLLM engine as a step scorer, for large models: a client of the host process that runs it (tts.models.host).

A score is a request for one token at the score position, with the log-probabilities of the two answers. vLLM's prefix
cache holds what comes before, in whole blocks. (Pooling and prompt log-probabilities would not use that cache.)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from tts.models.checkpoint import Checkpoint
from tts.models.formats import Format, Layout, TokenHead
from tts.models.scoring import ModelScorer, check_mass
from tts.models.vllm import VllmClient


class VllmScorer(ModelScorer):
    """Scores through a shared vLLM host. The first score() starts the host if none is running."""

    engine = "vllm"

    def __init__(self, checkpoint: Checkpoint, prm_format: Format, *, client: VllmClient, check_policy: bool) -> None:
        self._vllm = client
        self._check_policy = check_policy
        self._head: TokenHead = prm_format.head
        super().__init__(checkpoint, prm_format, provenance=client.provenance)
        self.context -= 1  # vLLM has to sample one token

    async def compute(self, layout: Layout, first: int, shared: int) -> list[float]:
        """See ModelScorer.compute. The last step is scored first, so that the cache holds all the others."""
        *others, last = layout.positions[first:]
        score = await self._at(layout.ids[: last + 1])
        return [*await asyncio.gather(*(self._at(layout.ids[: position + 1]) for position in others)), score]

    async def _at(self, ids: Sequence[int]) -> float:
        head = self._head
        logprobs, cached = await self._vllm.request("score", list(ids), head.good, head.bad)
        good, bad = logprobs[head.good], logprobs[head.bad]
        self.count(len(ids), cached)
        if self._check_policy:
            check_mass(self.checkpoint, math.exp(good) + math.exp(bad))
            self._check_policy = False
        return 1 / (1 + math.exp(min(bad - good, 700.0)))

    async def close(self) -> None:
        """Close the connection. The host keeps running for other clients and exits when it has none."""
        self._vllm.close()
