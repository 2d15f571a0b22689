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
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tts.models.checkpoint import Checkpoint
from tts.models.formats import Format, Layout
from tts.models.heads import load_head
from tts.models.prefix_cache import PrefixCache, Segment
from tts.models.scoring import ModelScorer, engine_error

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
        checkpoint: Checkpoint,
        prm_format: Format,
        *,
        dtype: str,
        batch_tokens: int,
        prefix_cache: bool,
        check_policy: bool,
    ) -> None:
        self._dtype = dtype
        self._batch_tokens = batch_tokens or (8192 if checkpoint.is_small else 16384)
        self._prefix_cache = prefix_cache
        self._check_policy = check_policy
        self._worker: _Worker | None = None
        self._tick: tuple[asyncio.AbstractEventLoop, list[_Row]] | None = None
        provenance = {"dtype": dtype, "version": importlib.metadata.version("transformers")}
        super().__init__(checkpoint, prm_format, provenance=provenance)

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
        """Let go of the model; what waits is answered first."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _send(self, tick: tuple[asyncio.AbstractEventLoop, list[_Row]]) -> None:
        if self._tick is tick:
            self._tick = None
        if self._worker is None:
            self._worker = _Worker(self._load, self._batch_tokens, self.count)
        self._worker.put(tick[1])

    def _load(self) -> _Reader:
        return _Reader(self.checkpoint, self.format, self._dtype, self._prefix_cache, self._check_policy)


class _Worker:
    """A thread that scores what waits, in batches of similar length.

    It is an executor's, because the interpreter waits for those at exit: from others torch aborts the process.
    """

    def __init__(self, load: Callable[[], _Reader], batch_tokens: int, count: Callable[[int, int], None]) -> None:
        self._load, self._batch_tokens, self._count = load, batch_tokens, count
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers scorer")
        self._inbox: queue.SimpleQueue[list[_Row]] = queue.SimpleQueue()
        self._reader: _Reader | None = None

    def put(self, rows: list[_Row]) -> None:
        self._inbox.put(rows)
        self._executor.submit(self._run)

    def end(self) -> None:
        self._executor.shutdown(wait=False)

    def _run(self) -> None:
        """Score all that waits; later calls find nothing, then."""
        rows: list[_Row] = []
        while not self._inbox.empty():
            rows += [row for row in self._inbox.get() if row.future.set_running_or_notify_cancel()]
        if not rows:
            return
        try:
            self._reader = self._reader or self._load()
            for batch in make_batches(self._reader.beginnings(rows), self._batch_tokens):
                self._read(batch)
            for row in rows:
                row.past = self._reader.recall(row)
        except Exception as error:
            _fail(rows, engine_error(TransformersScorer.engine, error))
            return
        for batch in make_batches(rows, self._batch_tokens):
            try:
                self._read(batch)
            except Exception as error:
                _fail(batch, engine_error(TransformersScorer.engine, error))

    def _read(self, batch: list[_Row]) -> None:
        answers = self._reader.read(batch)
        for row, scores in zip(batch, answers, strict=True):
            self._count(len(row.ids), row.begin)
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

    def __init__(
        self, checkpoint: Checkpoint, prm_format: Format, dtype: str, prefix_cache: bool, check_policy: bool
    ) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(1 if checkpoint.is_small else len(os.sched_getaffinity(0)))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and self._device == "cpu":
            dtype = "float32"
        self._backbone, self._head = load_head(
            checkpoint, prm_format, dtype=dtype, device=self._device, check_policy=check_policy
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
