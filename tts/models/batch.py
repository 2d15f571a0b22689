"""Requests that are decoded side by side: how each draws, and when it is done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tts.models.checkpoint import Checkpoint
from tts.models.draw import Drawing
from tts.models.prefix_cache import Segment
from tts.models.worker import Job
from tts.policy import Sampling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class Request(Job):
    """One completion."""

    prefix: tuple[int, ...]
    sampling: Sampling
    stop: str | None
    past: Segment | None = None  # of the prefix without its last token, which is the first to be decoded
    cached: int = 0  # tokens of it that another request had read
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The token to be decoded next."""
        return self.ids[-1] if self.ids else self.prefix[-1]

    @property
    def result(self) -> tuple[list[int], list[float], int]:
        """See ModelPolicy.generate."""
        return self.ids, self.logprobs, self.cached


class Batch:
    """Requests that are decoded side by side: how each draws, and when it is done."""

    def __init__(self, checkpoint: Checkpoint, requests: Sequence[Request]) -> None:
        self._checkpoint = checkpoint
        self.requests = list(requests)
        self._drawing = Drawing([request.sampling for request in requests])

    def draw(self, logits: Tensor) -> list[int]:
        """Draw the next token of each request, [requests, vocabulary]; returns the places of those that it ends."""
        ids, logprobs = self._drawing.draw(logits, np.array([len(request.ids) for request in self.requests]))
        for request, token, logprob in zip(self.requests, ids.tolist(), logprobs.tolist(), strict=True):
            request.ids.append(token)
            request.logprobs.append(logprob)
        return [i for i, request in enumerate(self.requests) if self._is_done(request)]

    def _is_done(self, request: Request) -> bool:
        last = request.ids[-1]
        if last in self._checkpoint.ends or len(request.ids) == request.sampling.max_tokens or request.is_over:
            return True
        if not request.stop:
            return False
        within, completing = self._checkpoint.stop_ids(request.stop)
        return last in within or (last in completing and request.stop in self._checkpoint.decode(request.ids))

    def without(self, done: Collection[int]) -> list[int]:
        """Let these requests go; returns the former places of the others."""
        kept = [i for i in range(len(self.requests)) if i not in done]
        self.requests = [self.requests[i] for i in kept]
        self._drawing.select(np.array(kept, dtype=int))
        return kept
