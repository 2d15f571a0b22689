"""The transformers engine as a step scorer: batched forward passes in a thread of this process, on any machine.

It is the plain implementation that the fast one is checked against and, for small models, the fast one itself. What is
asked for in one tick of the event loop, or waits while the thread is busy, is sorted by length and scored together: a
whole solution in one pass, a new step of a partial one from the keys and values of the steps before it. Hidden states
are used at the score positions only; logits over the vocabulary are never made.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from tts.engines.model import Model
from tts.engines.scoring import ModelScorer, engine_error
from tts.engines.scoring_cache import PrefixCache, Segment
from tts.engines.scoring_heads import load_head
from tts.formats import Format, Layout

_CACHE = 1 << 30  # bytes of keys and values on a CPU (at most an eighth of the memory)
_GPU_CACHE = 8  # one part in so many of a GPU's memory


@dataclass(eq=False)
class _Row:
    """Tokens to read, and where their scores are wanted."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]  # none: only the keys and values are wanted
    ends: tuple[int, ...]  # where a prefix may end that an earlier row left in the cache
    keep: bool  # whether later rows go on from here
    future: Future = field(default_factory=Future)
    past: Segment | None = None

    @property
    def begin(self) -> int:
        """How many tokens are read already."""
        return self.past.end if self.past else 0


class TransformersScorer(ModelScorer):
    """Scores with transformers; the first score() loads the model."""

    engine = "transformers"

    def __init__(
        self,
        model: Model,
        layout_of: Format,
        *,
        dtype: str,
        batch_tokens: int,
        prefix_cache: bool,
        check_policy: bool,
    ) -> None:
        self._dtype = dtype
        self._batch_tokens = batch_tokens or (8192 if model.is_small else 16384)
        self._prefix_cache = prefix_cache
        self._check_policy = check_policy
        self._inbox: queue.SimpleQueue[list[_Row] | None] | None = None
        self._tick: tuple[asyncio.AbstractEventLoop, list[_Row]] | None = None
        provenance = {"dtype": dtype, "version": importlib.metadata.version("transformers")}
        super().__init__(model, layout_of, provenance=provenance)

    async def compute(self, layout: Layout, first: int, shared: int) -> list[float]:
        """See ModelScorer.compute. One new step is a search's, which may go on; whole solutions leave nothing."""
        ends = (shared, *(position + 1 for position in layout.positions[:first]))
        row = _Row(layout.ids, layout.positions[first:], ends, keep=first == len(layout.positions) - 1)
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
        reader: _Reader | None = None
        closed = False
        while not closed:
            ticks = [inbox.get()]
            while not inbox.empty():
                ticks.append(inbox.get())
            closed = None in ticks
            rows = [row for tick in ticks if tick for row in tick if row.future.set_running_or_notify_cancel()]
            try:
                reader = reader or _Reader(self.model, self.format, self._dtype, self._prefix_cache, self._check_policy)
                for batch in make_batches(reader.beginnings(rows), self._batch_tokens):
                    self._read(reader, batch)
                for row in rows:
                    row.past = reader.recall(row)
            except Exception as error:
                _fail(rows, engine_error(self.engine, error))
                continue
            for batch in make_batches(rows, self._batch_tokens):
                try:
                    self._read(reader, batch)
                except Exception as error:
                    _fail(batch, engine_error(self.engine, error))

    def _read(self, reader: _Reader, batch: list[_Row]) -> None:
        answers = reader.read(batch)
        for row, scores in zip(batch, answers, strict=True):
            self.count(len(row.ids), row.begin)
            row.future.set_result(scores)


def _fail(rows: Sequence[_Row], error: Exception) -> None:
    for row in rows:
        row.future.set_exception(error)


def make_batches(rows: Sequence[_Row], tokens: int) -> list[list[_Row]]:
    """Rows in batches of similar length: at most `tokens` tokens with the padding, but at least one row each."""
    batches: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: (len(row.ids) - row.begin, row.begin)):
        if batches:
            new = max(len(other.ids) - other.begin for other in (row, batches[-1][-1]))
            past = max(row.begin, max(other.begin for other in batches[-1]))
            if (len(batches[-1]) + 1) * (new + past // 4) <= tokens:  # tokens of the past cost less than new ones
                batches[-1].append(row)
                continue
        batches.append([row])
    return batches


class _Reader:
    """A loaded model and what it has read."""

    def __init__(self, model: Model, layout_of: Format, dtype: str, prefix_cache: bool, check_policy: bool) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(1 if model.is_small else len(os.sched_getaffinity(0)))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and self._device == "cpu":
            dtype = "float32"
        self._backbone, self._head = load_head(
            model, layout_of, dtype=dtype, device=self._device, check_policy=check_policy
        )
        self._cache: PrefixCache | None = None
        if prefix_cache:
            gpu = self._device == "cuda"
            memory = torch.cuda.mem_get_info()[1] if gpu else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            self._cache = PrefixCache(memory // _GPU_CACHE if gpu else min(_CACHE, memory // 8))

    def beginnings(self, rows: Sequence[_Row]) -> list[_Row]:
        """The problems of which more than one row here, or more to come, go on: to be read once, before the rows."""
        if self._cache is None:
            return []
        wanted: Counter[tuple[int, ...]] = Counter()
        for row in rows:
            if row.ends[0] and self.recall(row) is None:
                wanted[row.ids[: row.ends[0]]] += 2 if row.keep else 1
        return [_Row(begin, (), (), keep=True) for begin, count in wanted.items() if count > 1]

    def recall(self, row: _Row) -> Segment | None:
        """The longest prefix of a row that has been read."""
        return self._cache.longest(row.ids, row.ends) if self._cache else None

    def read(self, rows: Sequence[_Row]) -> list[list[float]]:
        """The scores of each row; what is to be kept goes to the cache."""
        torch = self._torch
        news = [row.ids[row.begin :] for row in rows]
        width, past = max(map(len, news)), max(row.begin for row in rows)
        keep = self._cache is not None and any(row.keep for row in rows)
        # New tokens are padded on the right, where a causal model never looks from a score position.
        ids = torch.tensor([new + (0,) * (width - len(new)) for new in news], device=self._device)
        which = torch.tensor([i for i, row in enumerate(rows) for _ in row.positions], dtype=torch.long)
        where = torch.tensor([at - row.begin for row in rows for at in row.positions], dtype=torch.long)
        with torch.inference_mode():
            settings = self._with_past(rows, past, width) if past else {}
            output = self._backbone(input_ids=ids, use_cache=bool(past or keep), **settings)
            if keep:
                self._keep(rows, news, output.past_key_values, past)
            if not len(which):
                return [[] for _ in rows]
            scores = iter(self._head(output.last_hidden_state[which, where]).tolist())
        return [[next(scores) for _ in row.positions] for row in rows]

    def _with_past(self, rows: Sequence[_Row], past: int, width: int) -> dict:
        """The model's arguments for rows whose keys and values up to row.begin are known, padded on the left."""
        torch = self._torch
        from transformers import DynamicCache

        begins = torch.tensor([row.begin for row in rows], device=self._device)
        some = next(row.past for row in rows if row.past).values
        layers, _, heads, _, size = some.shape
        known = some.new_zeros(layers, 2, len(rows), heads, past, size)
        for i, row in enumerate(rows):
            for segment in row.past.chain() if row.past else ():
                end = past - row.begin + segment.end
                known[:, :, i, :, end - segment.values.shape[3] : end] = segment.values
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(known):
            cache.update(keys, values, layer)
        mask = torch.arange(past + width, device=self._device) >= (past - begins)[:, None]
        positions = begins[:, None] + torch.arange(width, device=self._device)
        return {"past_key_values": cache, "attention_mask": mask.long(), "position_ids": positions}

    def _keep(self, rows: Sequence[_Row], news: Sequence[tuple[int, ...]], cache, past: int) -> None:
        layers = [self._torch.stack([layer.keys[:, :, past:], layer.values[:, :, past:]]) for layer in cache.layers]
        whole = self._torch.stack(layers)  # [layers, 2, rows, heads, new tokens, size]
        for i, (row, new) in enumerate(zip(rows, news, strict=True)):
            if row.keep:
                segment = Segment(row.past, len(row.ids), whole[:, :, i, :, : len(new)].clone())
                self._cache.add(row.ids, segment)
