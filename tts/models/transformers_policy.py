"""The transformers engine as a policy: in this process, in a thread of its own, on any machine.

It is the plain implementation that the fast one is checked against, and what runs where vLLM can't. Waiting requests
are grouped by length and decoded together with a key-value cache; a finished row leaves its batch. Each row draws its
own Gumbel noise from its own seed, so that what is sampled depends on nothing else in the batch, but for rounding:
another batch shape moves float32 logits by about 1e-6, which may turn one token in a million; with float64 none.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from tts.errors import EngineError
from tts.models.checkpoint import Checkpoint
from tts.models.sampling import ModelPolicy
from tts.policy import Sampling


@dataclass(eq=False)
class _Row:
    """One request while it is decoded."""

    prefix: Sequence[int]
    sampling: Sampling
    stop: str | None
    future: Future = field(default_factory=Future)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.noise = np.random.default_rng(self.sampling.seed)


class TransformersPolicy(ModelPolicy):
    """Samples with transformers; the first sample() loads the model."""

    engine = "transformers"

    def __init__(self, checkpoint: Checkpoint, *, system_prompt: str, dtype: str, max_num_seqs: int) -> None:
        self._dtype = dtype
        self._max_num_seqs = max_num_seqs or (128 if checkpoint.is_small else 16)
        self._worker: _Worker | None = None
        provenance = {"dtype": dtype, "version": importlib.metadata.version("transformers")}
        super().__init__(checkpoint, system_prompt=system_prompt, provenance=provenance)

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, stop: str | None
    ) -> tuple[Sequence[int], Sequence[float], int]:
        """See ModelPolicy.generate."""
        row = _Row(prefix, sampling, stop)
        if self._worker is None:
            self._worker = _Worker(self.checkpoint, self._dtype, self._max_num_seqs)
        self._worker.put(row)
        return (*await asyncio.wrap_future(row.future), 0)

    async def close(self) -> None:
        """Let go of the model; what waits is answered first."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Worker:
    """A thread that decodes what waits, in batches of similar length.

    It is an executor's, because the interpreter waits for those at exit: from others torch aborts the process.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str, max_num_seqs: int) -> None:
        self._model, self._dtype, self._max_num_seqs = checkpoint, dtype, max_num_seqs
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"transformers {checkpoint.name}")
        self._lock = threading.Lock()
        self._waiting: list[_Row] = []
        self._busy = False
        self._decoder: _Decoder | None = None

    def put(self, row: _Row) -> None:
        with self._lock:
            self._waiting.append(row)
            if not self._busy:
                self._busy = True
                self._executor.submit(self._run)

    def end(self) -> None:
        self._executor.shutdown(wait=False)

    def _run(self) -> None:
        """Decode until nothing waits."""
        time.sleep(0.002)  # the requests of one tick of the event loop arrive together
        while True:
            with self._lock:
                rows, self._waiting = self._waiting, []
                self._busy = bool(rows)
            if not rows:
                return
            rows.sort(key=lambda row: len(row.prefix))
            for start in range(0, len(rows), self._max_num_seqs):
                self._decode([row for row in rows[start : start + self._max_num_seqs] if not row.future.done()])

    def _decode(self, batch: list[_Row]) -> None:
        if not batch:
            return
        try:
            self._decoder = self._decoder or _Decoder(self._model, self._dtype)
            self._decoder.decode(batch)
        except Exception as error:
            line = str(error).splitlines()[0] if str(error) else ""
            failure = EngineError(f"transformers failed: {type(error).__name__}: {line}")
            for row in batch:
                with contextlib.suppress(InvalidStateError):  # the others have their results
                    row.future.set_exception(failure)


class _Decoder:
    """A loaded model that decodes batches."""

    def __init__(self, checkpoint: Checkpoint, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        torch.set_num_threads(1 if checkpoint.is_small else len(os.sched_getaffinity(0)))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and self._device == "cpu":
            dtype = "float32"
        self._files = checkpoint
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint.download(), dtype=dtype).eval().to(self._device)

    def decode(self, rows: list[_Row]) -> None:
        """Decode rows to their ends; each row's future gets (ids, log-probabilities) as soon as the row is done."""
        with self._torch.inference_mode():
            self._decode(rows)

    def _decode(self, rows: list[_Row]) -> None:
        torch = self._torch
        from transformers import DynamicCache

        longest = max(len(row.prefix) for row in rows)
        ids = torch.tensor([[0] * (longest - len(row.prefix)) + list(row.prefix) for row in rows], device=self._device)
        mask = torch.tensor(
            [[0] * (longest - len(row.prefix)) + [1] * len(row.prefix) for row in rows], device=self._device
        )
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache()
        while True:
            logits = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            logprobs = logits.double().log_softmax(-1)  # [rows, vocabulary]
            chosen = self._choose(logprobs, rows)
            values = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
            for row, token, value in zip(rows, chosen.tolist(), values, strict=True):
                if not row.future.done():
                    row.ids.append(token)
                    row.logprobs.append(value)
                    if self._is_done(row):
                        with contextlib.suppress(InvalidStateError):  # cancelled this very moment
                            row.future.set_result((row.ids, row.logprobs))
            alive = [i for i, row in enumerate(rows) if not row.future.done()]
            if not alive:
                return
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            if len(alive) < 0.9 * len(rows):  # copying the cache costs about a step, so not for every single row
                kept = torch.tensor(alive, device=self._device)
                cache.batch_select_indices(kept)
                rows, ids, positions, mask = [rows[i] for i in alive], ids[kept], positions[kept], mask[kept]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)

    def _choose(self, logprobs, rows: list[_Row]):
        """The next id of each row, drawn from softmax(log p / T): argmax of log p / T plus the row's Gumbel noise."""
        torch = self._torch
        temperatures = torch.tensor(
            [row.sampling.temperature or 1.0 for row in rows], dtype=logprobs.dtype, device=logprobs.device
        )
        scores = logprobs / temperatures[:, None]
        if any(row.sampling.top_p < 1 for row in rows):
            top_p = torch.tensor([row.sampling.top_p for row in rows], dtype=logprobs.dtype, device=logprobs.device)
            ordered, order = scores.softmax(-1).sort(-1, descending=True)
            outside = ordered.cumsum(-1) - ordered >= top_p[:, None]  # the smallest set that reaches top_p stays
            scores = scores.masked_fill(outside.scatter(1, order, outside), -torch.inf)
        # A standard Gumbel is -log of a standard exponential; greedy rows have none.
        noise = np.stack(
            [
                row.noise.standard_exponential(scores.shape[1])
                if row.sampling.temperature
                else np.ones(scores.shape[1])
                for row in rows
            ]
        )
        return (scores - torch.from_numpy(noise).log().to(scores.device)).argmax(-1)

    def _is_done(self, row: _Row) -> bool:
        if row.ids[-1] in self._files.ends or len(row.ids) == row.sampling.max_tokens:
            return True
        return bool(
            row.stop and row.ids[-1] in self._files.stop_ids(row.stop)[1] and row.stop in self._files.decode(row.ids)
        )
