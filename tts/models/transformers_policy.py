"""The transformers engine as a policy: in this process, in a thread of its own, on any machine.

It runs where vLLM can't, and for small models it is several times faster. Rows join and leave a running batch
(tts.models.packs); what a request continues is looked up in a prefix cache, so that a step of a search costs its own
tokens only. Other architectures than Llama's kin are decoded as transformers does it (tts.models.plain_decoding).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tts.models import packs
from tts.models.batch import Batch, Request
from tts.models.checkpoint import Checkpoint
from tts.models.llama import Llama, is_kin, tolerance
from tts.models.plain_decoding import Plain
from tts.models.prefix_cache import Segment
from tts.models.reading import FlatReader, Row, make_batches
from tts.models.sampling import ModelPolicy
from tts.models.worker import Answers, InWorker, Runner, Worker, load_model, provenance
from tts.policy import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COHORTS = 8  # at once: each costs some calls a step
_PROMPT_TOKENS = 2048  # read in one pass


class TransformersPolicy(InWorker, ModelPolicy):
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
            return Plain(checkpoint, model, most)

        self._worker = Worker(load)
        super().__init__(checkpoint, system_prompt=system_prompt, provenance=provenance(dtype))

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, stop: str | None
    ) -> tuple[Sequence[int], Sequence[float], int]:
        """See ModelPolicy.generate."""
        return await self._worker.run(Request(tuple(prefix), sampling, stop))


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
        far = (ours - usual).abs() > tolerance(usual.dtype) * usual.std()  # not where both are NaN: refused later
        if far.any():
            raise NotImplementedError

    def clear(self) -> None:
        """See Runner."""
        self._waiting: deque[Request] = deque()
        self._running: list[tuple[packs.Cohort, Batch]] = []

    @property
    def is_busy(self) -> bool:
        """See Runner."""
        return bool(self._waiting or self._running)

    def add(self, jobs: Iterable[Request]) -> None:
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
        if not self._waiting or len(self._running) == _COHORTS:
            return
        running = [request for _, batch in self._running for request in batch.requests]
        rows, tokens = self._most - len(running), self._room - sum(map(_longest, running))
        if running and rows < min(len(self._waiting), self._most // 4):
            return  # a few at a time would make small cohorts
        joining: dict[tuple[int, ...], list[Request]] = {}  # by what they continue
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
        requests: list[Request] = []
        for ids, same in joining.items():
            for i, request in enumerate(same):
                request.past, request.cached = known[ids], 0 if i == 0 and ids in missing else len(ids)
            made += [(known[ids], len(same[i : i + width])) for i in range(0, len(same), width)]
            requests += same
        self._running.append((packs.Cohort(made, self._reader.token, width=width), Batch(self._checkpoint, requests)))

    def _read(self, prefixes: Sequence[tuple[int, ...]]) -> list[Segment]:
        """Segments of whole prefixes."""
        rows = [Row(ids, None, (), keep=True) for ids in prefixes]
        found = {}
        for batch in make_batches(rows, _PROMPT_TOKENS):
            for row, (_, segment) in zip(batch, self._reader.read(batch), strict=True):
                found[row.ids] = segment
                self._reader.cache.add(row.ids, segment)
        return [found[ids] for ids in prefixes]

    def _keep(self, request: Request, cohort: packs.Cohort, row: int) -> None:
        """Keep what a step of a search has read: its children continue it."""
        if request.stop and request.ids[-1] not in self._checkpoint.ends:
            ids = (*request.prefix, *request.ids[:-1])
            self._reader.cache.add(ids, Segment(request.past, len(ids), cohort.cut(row)))


def _longest(request: Request) -> int:
    return len(request.prefix) + request.sampling.max_tokens
