"""Decoding as transformers does it, for any architecture: in padded batches, with the cache that the model makes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tts.errors import InputError
from tts.models.batch import Batch, Request
from tts.models.checkpoint import Checkpoint
from tts.models.worker import Answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Plain:
    """A loaded model that decodes a batch to its end before the next one begins."""

    def __init__(self, checkpoint: Checkpoint, model: PreTrainedModel, most: int) -> None:
        import torch

        self._torch, self._checkpoint, self._model, self._most = torch, checkpoint, model, most
        self.clear()

    def clear(self) -> None:
        """See Runner."""
        self._waiting: list[Request] = []
        self._batch: Batch | None = None

    @property
    def is_busy(self) -> bool:
        """See Runner."""
        return bool(self._waiting or self._batch)

    def add(self, jobs: Iterable[Request]) -> None:
        """See Runner."""
        self._waiting += jobs

    def _begin(self) -> None:
        torch = self._torch
        self._waiting.sort(key=lambda request: len(request.prefix))
        rows, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        self._batch, self._rows = Batch(self._checkpoint, rows), list(range(len(rows)))  # the cache's row of each
        longest = max(len(row.prefix) for row in rows)
        padded = [[0] * (longest - len(row.prefix)) + [1] * len(row.prefix) for row in rows]
        self._ids = torch.tensor([[0] * (longest - len(row.prefix)) + list(row.prefix) for row in rows])
        self._mask = torch.tensor(padded, device=self._model.device)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._cache = None  # the model makes one, with its own kinds of layers

    def step(self) -> Answers:
        """One more token for the rows of the batch."""
        torch = self._torch
        from transformers import DynamicCache

        if self._batch is None:
            self._begin()
        with torch.inference_mode():
            output = self._model(
                input_ids=self._ids.to(self._model.device),
                attention_mask=self._mask,
                position_ids=self._positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = self._cache = getattr(output, "past_key_values", None)
            if cache is None:  # some recurrent models hand out none, and read the padding too
                raise InputError(
                    f"{self._checkpoint.label}: transformers can't decode its architecture in batches: "
                    "use another model, or engine='vllm'"
                )
            requests = self._batch.requests
            done = self._batch.draw(output.logits[self._rows, -1])
            self._rows = [self._rows[i] for i in self._batch.without(set(done))]
            # A row that is done may stay in the batch, but the model may have no positions beyond its context.
            self._positions = (self._positions[:, -1:] + 1).clamp(max=self._checkpoint.context - 1)
            # Copying the cache costs about a step, so it is not done for every row. Only the plain cache can shrink.
            if len(self._rows) < 0.9 * len(self._mask) and type(cache) is DynamicCache:
                kept = torch.tensor(self._rows, dtype=torch.long, device=self._model.device)
                cache.reorder_cache(kept)  # unlike batch_select_indices, all kinds of layers have it
                self._mask, self._positions = self._mask[kept], self._positions[kept]
                self._rows = list(range(len(kept)))
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
            self._ids = torch.zeros(len(self._mask), 1, dtype=torch.long)
            for row, request in zip(self._rows, self._batch.requests, strict=True):
                self._ids[row, 0] = request.last
            if not self._rows:
                self._batch = None
        return [(requests[i], requests[i].result) for i in done]
