"""The transformers engine as a step scorer: whole solutions in batched forward passes, in a thread of this process.

It is the plain implementation that the fast one is checked against and, for small models, the fast one itself. What is
asked for in one tick of the event loop, or waits while the thread is busy, is sorted by length and scored together.
Hidden states are kept at the score positions only; logits over the vocabulary are never made.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from tts.engines.model import Model
from tts.engines.scoring import ModelScorer, engine_error
from tts.engines.scoring_heads import load_head
from tts.formats import Format, Layout


@dataclass(eq=False)
class _Row:
    """One request: the scores at layout.positions[first:]."""

    layout: Layout
    first: int
    future: Future = field(default_factory=Future)


class TransformersScorer(ModelScorer):
    """Scores with transformers; the first score() loads the model."""

    engine = "transformers"

    def __init__(self, model: Model, layout_of: Format, *, dtype: str, batch_tokens: int, check_policy: bool) -> None:
        self._dtype = dtype
        self._check_policy = check_policy
        self._batch_tokens = batch_tokens or (4096 if model.is_small else 16384)
        self._inbox: queue.SimpleQueue[list[_Row] | None] | None = None
        self._tick: tuple[asyncio.AbstractEventLoop, list[_Row]] | None = None
        provenance = {"dtype": dtype, "version": importlib.metadata.version("transformers")}
        super().__init__(model, layout_of, provenance=provenance)

    async def compute(self, layout: Layout, first: int) -> list[float]:
        """See ModelScorer.compute."""
        row = _Row(layout, first)
        loop = asyncio.get_running_loop()
        if self._tick is None or self._tick[0] is not loop:
            self._tick = loop, []
            loop.call_soon(self._send, self._tick)
        self._tick[1].append(row)
        return await asyncio.wrap_future(row.future)

    async def close(self) -> None:
        """End the thread, which lets the model go; what waits is answered first."""
        if self._inbox is not None:
            self._inbox.put(None)
            self._inbox = None

    def _send(self, tick: tuple[asyncio.AbstractEventLoop, list[_Row]]) -> None:
        if self._tick is tick:
            self._tick = None
        if self._inbox is None:
            self._inbox = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(self._inbox,), daemon=True).start()
        self._inbox.put(tick[1])

    def _serve(self, inbox: queue.SimpleQueue[list[_Row] | None]) -> None:
        """The thread: scores what waits, in batches of similar length, until close()."""
        scorer: _Forward | None = None
        closed = False
        while not closed:
            ticks = [inbox.get()]
            while not inbox.empty():
                ticks.append(inbox.get())
            closed = None in ticks
            for rows in make_batches([row for tick in ticks if tick for row in tick], self._batch_tokens):
                try:
                    scorer = scorer or _Forward(self.model, self.format, self._dtype, self._check_policy)
                    answers = scorer.score(rows)
                    self.counts["scored"] += sum(len(row.layout.ids) for row in rows)
                    for row, answer in zip(rows, answers, strict=True):
                        row.future.set_result(answer)
                except Exception as error:
                    for row in rows:
                        row.future.set_exception(engine_error(self.engine, error))


def make_batches(rows: Sequence[_Row], tokens: int) -> list[list[_Row]]:
    """Rows in batches of similar length: at most `tokens` tokens with the padding, but at least one row each."""
    batches: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: len(row.layout.ids)):
        if batches and (len(batches[-1]) + 1) * len(row.layout.ids) <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


class _Forward:
    """A loaded model."""

    def __init__(self, model: Model, layout_of: Format, dtype: str, check_policy: bool) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(1 if model.is_small else len(os.sched_getaffinity(0)))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and self._device == "cpu":
            dtype = "float32"
        self._backbone, self._head = load_head(
            model, layout_of, dtype=dtype, device=self._device, check_policy=check_policy
        )

    def score(self, rows: Sequence[_Row]) -> list[list[float]]:
        """One list of scores a row, [steps from its first on]."""
        torch = self._torch
        longest = max(len(row.layout.ids) for row in rows)
        # Padding stands on the right, where a causal model never looks from a score position.
        ids = torch.tensor([row.layout.ids + (0,) * (longest - len(row.layout.ids)) for row in rows])
        wanted = [row.layout.positions[row.first :] for row in rows]
        which = torch.tensor([i for i, positions in enumerate(wanted) for _ in positions])
        where = torch.tensor([position for positions in wanted for position in positions])
        with torch.inference_mode():
            hidden = self._backbone(input_ids=ids.to(self._device), use_cache=False).last_hidden_state
            scores = iter(self._head(hidden[which.to(self._device), where.to(self._device)]).tolist())
        return [[next(scores) for _ in positions] for positions in wanted]
