"""The transformers engine as a policy: in this process, in a thread of its own, on any machine.

It is the plain implementation that the fast one is checked against, it runs where vLLM can't, and for small models it
is several times faster. Rows join and leave a running batch (tts.models.packs); what a request continues is looked up
in a prefix cache, so a step of a search costs its own tokens only. Models whose attention the packs can't replace are
decoded in plain batches, with transformers' own cache.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tts.errors import InputError
from tts.models import packs
from tts.models.checkpoint import Checkpoint
from tts.models.draw import Drawing
from tts.models.llama import Llama, is_kin, tolerance
from tts.models.prefix_cache import Segment
from tts.models.reading import FlatReader, Row, make_batches
from tts.models.sampling import ModelPolicy
from tts.models.worker import Answers, Job, Runner, Worker, load_model, provenance
from tts.policy import Sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_COHORTS = 8  # at once: each costs some calls a step
_PROMPT_TOKENS = 2048  # read in one pass


@dataclass(eq=False)
class _Request(Job):
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


class TransformersPolicy(ModelPolicy):
    """Samples with transformers; the first sample() loads the model."""

    engine = "transformers"

    def __init__(self, checkpoint: Checkpoint, *, system_prompt: str, dtype: str, max_num_seqs: int) -> None:
        most = max_num_seqs or (512 if checkpoint.is_small else 16)

        def load() -> Runner:
            model = load_model(checkpoint, dtype)
            if is_kin(model, checkpoint):
                try:
                    return _InPacks(checkpoint, model, most)
                except NotImplementedError:
                    model = load_model(checkpoint, dtype)  # the first one was taken apart
            print(
                f"{checkpoint.label}: rows can't share what this architecture ({type(model).__name__}) keeps: "
                "it is decoded in plain batches, each prefix read from its beginning",
                file=sys.stderr,
            )
            return _Plain(checkpoint, model, most)

        self._worker = Worker(load)
        super().__init__(checkpoint, system_prompt=system_prompt, provenance=provenance(dtype))

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, stop: str | None
    ) -> tuple[Sequence[int], Sequence[float], int]:
        """See ModelPolicy.generate."""
        return await self._worker.run(_Request(tuple(prefix), sampling, stop))

    async def close(self) -> None:
        """Release the model after all waiting requests are answered."""
        self._worker.close()


class _Batch:
    """Requests that are decoded side by side: how each draws, and when it is done."""

    def __init__(self, checkpoint: Checkpoint, requests: Sequence[_Request]) -> None:
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

    def _is_done(self, request: _Request) -> bool:
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


class _InPacks:
    """A model whose rows are decoded in packs, and what it has read.

    Raises NotImplementedError if its logits are not those of the model that it was made from.
    """

    def __init__(self, checkpoint: Checkpoint, model: PreTrainedModel, most: int) -> None:
        import torch

        self._torch, self._checkpoint, self._most = torch, checkpoint, most
        size = min(40, checkpoint.context)
        ids = torch.arange(2 * size, device=model.device).view(2, size) % model.config.vocab_size
        with torch.inference_mode():
            usual = model(input_ids=ids, use_cache=False).logits[:, size // 2 :]
        self._model = Llama(model, checkpoint)
        self._reader = FlatReader(self._model, lambda hidden: hidden[:, 0])  # no scores are asked for
        self._room = packs.room(self._model.device) // self._reader.token.nbytes  # tokens
        self.clear()
        pasts = self._read([tuple(row[: size // 2]) for row in ids.tolist()])
        cohort = packs.Cohort([(past, 1) for past in pasts], self._reader.token)
        with torch.inference_mode():
            tokens = ids[:, size // 2 :].unbind(1)
            ours = torch.stack([packs.decode(self._model, [cohort], token) for token in tokens], dim=1)
        if (
            (ours - usual).abs() > tolerance(usual.dtype) * usual.std()
        ).any():  # not where both are NaN, which is refused later
            raise NotImplementedError

    def clear(self) -> None:
        """See Runner."""
        self._waiting: deque[_Request] = deque()
        self._running: list[tuple[packs.Cohort, _Batch]] = []

    @property
    def is_busy(self) -> bool:
        """See Runner."""
        return bool(self._waiting or self._running)

    def add(self, jobs: Iterable[_Request]) -> None:
        """See Runner."""
        self._waiting += jobs

    def step(self) -> Answers:
        """Let waiting requests join, then draw a token for every row."""
        with self._torch.inference_mode():
            self._join()
            ids = [request.last for _, batch in self._running for request in batch.requests]
            logits = packs.decode(
                self._model,
                [cohort for cohort, _ in self._running],
                self._torch.tensor(ids, device=self._model.device),
            )
            answers, still, begin = [], [], 0
            for cohort, batch in self._running:
                end = begin + len(cohort)
                done = batch.draw(logits[begin:end])
                begin = end
                for i in done:
                    self._keep(batch.requests[i], cohort, i)
                    answers.append((batch.requests[i], batch.requests[i].result))
                if len(done) < len(cohort):
                    if done:
                        cohort.select(self._torch.tensor(batch.without(set(done)), device=self._model.device))
                    still.append((cohort, batch))
            self._running = still
        return answers

    def _join(self) -> None:
        """Begin a cohort of the requests that have waited longest, as many as there is room for."""
        running = [request for _, batch in self._running for request in batch.requests]
        rows, tokens = self._most - len(running), self._room - sum(map(_longest, running))
        if len(self._running) == _COHORTS or (running and rows < min(len(self._waiting), self._most // 4)):
            return  # a few at a time would make small cohorts
        joining: dict[tuple[int, ...], list[_Request]] = {}  # by what they continue
        while self._waiting and rows and (tokens >= _longest(self._waiting[0]) or not (running or joining)):
            request = self._waiting.popleft()
            joining.setdefault(request.prefix[:-1], []).append(request)
            rows, tokens = rows - 1, tokens - _longest(request)
        if not joining:
            return
        known = {ids: self._reader.cache.longest(ids, [len(ids)]) if ids else None for ids in joining}
        missing = [ids for ids, segment in known.items() if ids and segment is None]
        known |= zip(missing, self._read(missing), strict=True)
        made: list[tuple[Segment | None, int]] = []
        width = packs.PACK if any(request.stop for same in joining.values() for request in same) else 1
        requests: list[_Request] = []
        for ids, same in joining.items():
            for i, request in enumerate(same):
                request.past, request.cached = known[ids], 0 if i == 0 and ids in missing else len(ids)
            made += [(known[ids], len(same[i : i + width])) for i in range(0, len(same), width)]
            requests += same
        self._running.append((packs.Cohort(made, self._reader.token, width=width), _Batch(self._checkpoint, requests)))

    def _read(self, prefixes: Sequence[tuple[int, ...]]) -> list[Segment]:
        """Segments of whole prefixes."""
        rows = [Row(ids, None, (), keep=True) for ids in prefixes]
        found = {}
        for batch in make_batches(rows, _PROMPT_TOKENS):
            for row, (_, segment) in zip(batch, self._reader.read(batch), strict=True):
                found[row.ids] = segment
                self._reader.cache.add(row.ids, segment)
        return [found[ids] for ids in prefixes]

    def _keep(self, request: _Request, cohort: packs.Cohort, row: int) -> None:
        """Keep what a step of a search has read: its children continue it."""
        if request.stop and request.ids[-1] not in self._checkpoint.ends:
            ids = (*request.prefix, *request.ids[:-1])
            self._reader.cache.add(ids, Segment(request.past, len(ids), cohort.cut(row)))


def _longest(request: _Request) -> int:
    return len(request.prefix) + request.sampling.max_tokens


class _Plain:
    """A loaded model that decodes a batch to its end before the next one, with the cache that the model makes."""

    def __init__(self, checkpoint: Checkpoint, model: PreTrainedModel, most: int) -> None:
        import torch

        self._torch, self._checkpoint, self._model, self._most = torch, checkpoint, model, most
        self.clear()

    def clear(self) -> None:
        """See Runner."""
        self._waiting: list[_Request] = []
        self._batch: _Batch | None = None

    @property
    def is_busy(self) -> bool:
        """See Runner."""
        return bool(self._waiting or self._batch)

    def add(self, jobs: Iterable[_Request]) -> None:
        """See Runner."""
        self._waiting += jobs

    def _begin(self) -> None:
        torch = self._torch
        self._waiting.sort(key=lambda request: len(request.prefix))
        rows, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        self._batch, self._rows = _Batch(self._checkpoint, rows), list(range(len(rows)))  # the cache's row of each
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
                self._mask, self._positions, self._rows = (
                    self._mask[kept],
                    self._positions[kept],
                    list(range(len(kept))),
                )
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
            self._ids = torch.zeros(len(self._mask), 1, dtype=torch.long)
            for row, request in zip(self._rows, self._batch.requests, strict=True):
                self._ids[row, 0] = request.last
            if not self._rows:
                self._batch = None
        return [(requests[i], requests[i].result) for i in done]
