"""The transformers engine as a policy: in this process, in a thread of its own, on any machine.

It is the plain implementation that the fast one is checked against, and it runs where vLLM can't. Waiting requests are
grouped by length and decoded together with a key-value cache; a finished row leaves its batch. Each row draws Gumbel
noise from its own seed, so its sample does not depend on the other rows, except through rounding: another batch shape
moves float32 logits by about 1e-6, which may change one token in a million; with float64 it changes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tts.errors import InputError
from tts.models.checkpoint import Checkpoint
from tts.models.sampling import ModelPolicy
from tts.models.worker import Job, Worker, load_model, provenance
from tts.policy import Sampling


@dataclass(eq=False)
class _Row(Job):
    """One request while it is decoded."""

    prefix: Sequence[int]
    sampling: Sampling
    stop: str | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.noise = np.random.default_rng(self.sampling.seed)


class TransformersPolicy(ModelPolicy):
    """Samples with transformers; the first sample() loads the model."""

    engine = "transformers"

    def __init__(self, checkpoint: Checkpoint, *, system_prompt: str, dtype: str, max_num_seqs: int) -> None:
        max_num_seqs = max_num_seqs or (128 if checkpoint.is_small else 16)
        # The rows of a batch end one by one, so the next requests arrive one by one too: wait 2 ms for more of them.
        self._worker = Worker(lambda: _Decoder(checkpoint, dtype, max_num_seqs), pause=0.002)
        super().__init__(checkpoint, system_prompt=system_prompt, provenance=provenance(dtype))

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, stop: str | None
    ) -> tuple[Sequence[int], Sequence[float], int]:
        """See ModelPolicy.generate."""
        return (*await self._worker.run(_Row(prefix, sampling, stop)), 0)

    async def close(self) -> None:
        """Release the model after all waiting requests are answered."""
        self._worker.close()


class _Decoder:
    """A loaded model that decodes batches."""

    def __init__(self, checkpoint: Checkpoint, dtype: str, max_num_seqs: int) -> None:
        import torch

        self._torch = torch
        self._checkpoint = checkpoint
        self._max_num_seqs = max_num_seqs
        self._model = load_model(checkpoint, dtype)
        self._device = self._model.device

    def batches(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        """Rows of similar length together."""
        rows = sorted(rows, key=lambda row: len(row.prefix))
        for start in range(0, len(rows), self._max_num_seqs):
            yield rows[start : start + self._max_num_seqs]

    def run(self, rows: list[_Row]) -> None:
        """Decode rows to their ends; each is answered with (ids, log-probabilities) as soon as it is done."""
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
        cache = None  # the model makes one, with its own kinds of layers
        while True:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = getattr(output, "past_key_values", None)
            if cache is None:  # some recurrent models hand out none, and read the padding too
                raise InputError(
                    f"{self._checkpoint.label}: transformers can't decode its architecture in batches: "
                    "use another model, or engine='vllm'"
                )
            logprobs = output.logits[:, -1].double().log_softmax(-1)  # [rows, vocabulary]
            chosen = self._choose(logprobs, rows)
            values = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
            for row, token, value in zip(rows, chosen.tolist(), values, strict=True):
                if not row.future.done():
                    row.ids.append(token)
                    row.logprobs.append(value)
                    if self._is_done(row):
                        row.answer((row.ids, row.logprobs))
            alive = [i for i, row in enumerate(rows) if not row.future.done()]
            if not alive:
                return
            # A row that is done may stay in the batch, but the model may have no positions beyond its context.
            ids, positions = chosen[:, None], (positions[:, -1:] + 1).clamp(max=self._checkpoint.context - 1)
            # Copying the cache costs about a step, so it is not done for every row. Only the plain cache can shrink.
            if len(alive) < 0.9 * len(rows) and type(cache) is DynamicCache:
                kept = torch.tensor(alive, device=self._device)
                cache.reorder_cache(kept)  # unlike batch_select_indices, all kinds of layers have it
                rows, ids, positions, mask = [rows[i] for i in alive], ids[kept], positions[kept], mask[kept]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)

    def _choose(self, logprobs, rows: list[_Row]):
        """The next id of each row, drawn from softmax(log p / T): the argmax of log p / T plus Gumbel noise."""
        torch = self._torch
        temperatures = torch.tensor(
            [row.sampling.temperature or 1.0 for row in rows], dtype=logprobs.dtype, device=logprobs.device
        )
        scores = logprobs / temperatures[:, None]
        if any(row.sampling.top_p < 1 for row in rows):
            top_p = torch.tensor([row.sampling.top_p for row in rows], dtype=logprobs.dtype, device=logprobs.device)
            ordered, order = scores.softmax(-1).sort(-1, descending=True)
            outside = ordered.cumsum(-1) - ordered >= top_p[:, None]  # keep the smallest set that reaches top_p
            scores = scores.masked_fill(outside.scatter(1, order, outside), -torch.inf)
        # Standard Gumbel noise is -log of a standard exponential; greedy rows get no noise.
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
        checkpoint, last = self._checkpoint, row.ids[-1]
        if last in checkpoint.ends or len(row.ids) == row.sampling.max_tokens:
            return True
        return bool(row.stop and last in checkpoint.stop_ids(row.stop)[1] and row.stop in checkpoint.decode(row.ids))
