"""The transformers engine as a step scorer: batched forward passes in a thread of this process, on any machine.

It is the plain implementation that the fast one is checked against and, for small models, the fast one itself. Requests
that wait at the same time are sorted by length and scored together: a whole solution in one pass, a new step of a
partial one from the keys and values of the steps before it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tts.models.checkpoint import Checkpoint
from tts.models.formats import Format, Layout
from tts.models.heads import Head, load_head
from tts.models.prefix_cache import PrefixCache, Segment
from tts.models.scoring import ModelScorer
from tts.models.worker import Job, Worker, provenance

_CACHE = 1 << 30  # bytes of keys and values on a CPU, but at most an eighth of its memory
_GPU_CACHE = 8  # a GPU keeps this fraction of its memory: one in _GPU_CACHE


@dataclass(eq=False)
class _Row(Job):
    """Tokens to read, and where their scores are wanted."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]  # empty if only the keys and values are wanted
    ends: tuple[int, ...]  # where a prefix in the cache may end
    keep: bool  # whether later rows may continue this one
    past: Segment | None = None

    @property
    def begin(self) -> int:
        """The number of tokens that the cache holds."""
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
        def load() -> _Reader:
            head = load_head(checkpoint, prm_format, dtype=dtype, check_policy=check_policy)
            cache = make_cache(checkpoint, head) if prefix_cache else None
            return _Reader(head, cache, batch_tokens or (8192 if checkpoint.is_small else 16384), self.count)

        self._worker = Worker(load)
        super().__init__(checkpoint, prm_format, provenance=provenance(dtype))

    async def compute(self, layout: Layout, first: int, shared: int) -> list[float]:
        """See ModelScorer.compute. A single new step comes from a search, which may continue it, so it is kept."""
        ends = (shared, *(position + 1 for position in layout.positions[:first]))
        keep = first == len(layout.positions) - 1
        return await self._worker.run(_Row(layout.ids, layout.positions[first:], ends, keep))

    async def close(self) -> None:
        """Release the model after all waiting requests are answered."""
        self._worker.close()


def make_batches(rows: Sequence[_Row], tokens: int) -> list[list[_Row]]:
    """Batches of rows of similar length, with at most `tokens` tokens including padding, but at least one row."""
    batches: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: (len(row.ids) - row.begin, row.begin)):
        if batches:
            new = max(len(other.ids) - other.begin for other in (row, batches[-1][-1]))
            past = max(row.begin, max(other.begin for other in batches[-1]))
            if (len(batches[-1]) + 1) * (new + past // 4) <= tokens:  # a token of the past costs less than a new one
                batches[-1].append(row)
                continue
        batches.append([row])
    return batches


def make_cache(checkpoint: Checkpoint, head: Head) -> PrefixCache | None:
    """A cache for a model, or None, with a line on stderr, if its layers keep more than keys and values of one shape.

    Layers with a sliding window are fine: the cache keeps what the window has passed, and the model's mask hides it.
    """
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    ids, none = torch.zeros(1, 2, dtype=torch.long, device=head.device), torch.zeros(0, dtype=torch.long)
    with torch.inference_mode():
        _, found = head((none, none), input_ids=ids, use_cache=True)
    plain = type(found) is DynamicCache and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.is_initialized for layer in found.layers
    )
    if not plain or len({part.shape for layer in found.layers for part in (layer.keys, layer.values)}) != 1:
        print(
            f"{checkpoint.label}: the prefix cache is off, because it can't hold what this architecture keeps: "
            "each partial solution is read from its beginning",
            file=sys.stderr,
        )
        return None
    gpu = head.device.type == "cuda"
    memory = torch.cuda.mem_get_info()[1] if gpu else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return PrefixCache(memory // _GPU_CACHE if gpu else min(_CACHE, memory // 8))


class _Reader:
    """A loaded model and what it has read."""

    def __init__(
        self, head: Head, cache: PrefixCache | None, batch_tokens: int, count: Callable[[int, int], None]
    ) -> None:
        import torch
        from transformers import DynamicCache

        self._torch, self._new_cache = torch, DynamicCache
        self._head, self._cache, self._batch_tokens, self._count = head, cache, batch_tokens, count
        self._device = head.device

    def batches(self, rows: list[_Row]) -> Iterator[list[_Row]]:
        """Batches of the beginnings that several rows share, then of the rows themselves."""
        yield from make_batches(self._beginnings(rows), self._batch_tokens)
        for row in rows:
            row.past = self._recall(row)
        yield from make_batches(rows, self._batch_tokens)

    def run(self, rows: list[_Row]) -> None:
        """Answer each row with its scores."""
        for row, scores in zip(rows, self._read(rows), strict=True):
            self._count(len(row.ids), row.begin)
            row.answer(scores)

    def _beginnings(self, rows: Sequence[_Row]) -> list[_Row]:
        """The problems that more than one row begins with, now or later: each is read once, before the rows."""
        if self._cache is None:
            return []
        wanted: Counter[tuple[int, ...]] = Counter()
        for row in rows:
            if row.ends[0] and self._recall(row) is None:
                wanted[row.ids[: row.ends[0]]] += 2 if row.keep else 1
        return [_Row(begin, (), (), keep=True) for begin, count in wanted.items() if count > 1]

    def _recall(self, row: _Row) -> Segment | None:
        """The longest prefix of a row in the cache."""
        return self._cache.longest(row.ids, row.ends) if self._cache else None

    def _read(self, rows: Sequence[_Row]) -> list[list[float]]:
        """The scores of each row. Rows to be kept go to the cache."""
        torch = self._torch
        news = [row.ids[row.begin :] for row in rows]
        width, past = max(map(len, news)), max(row.begin for row in rows)
        keep = self._cache is not None and any(row.keep for row in rows)
        # New tokens are padded on the right: a causal model does not look there from a score position.
        ids = torch.tensor([new + (0,) * (width - len(new)) for new in news], device=self._device)
        which = torch.tensor([i for i, row in enumerate(rows) for _ in row.positions], dtype=torch.long)
        where = torch.tensor([at - row.begin for row in rows for at in row.positions], dtype=torch.long)
        with torch.inference_mode():
            settings = {"past_key_values": self._new_cache()} if keep else {}
            if past:
                settings = self._with_past(rows, past, width)
            scores, cache = self._head((which, where), input_ids=ids, use_cache=bool(settings), **settings)
            if keep:
                self._keep(rows, news, cache, past)
        scores = iter(scores.tolist())
        return [[next(scores) for _ in row.positions] for row in rows]

    def _with_past(self, rows: Sequence[_Row], past: int, width: int) -> dict:
        """The model's arguments for rows with keys and values up to row.begin, which are padded on the left."""
        torch = self._torch
        begins = torch.tensor([row.begin for row in rows], device=self._device)
        some = next(row.past for row in rows if row.past).values
        layers, _, heads, _, size = some.shape
        known = some.new_zeros(layers, 2, len(rows), heads, past, size)
        for i, row in enumerate(rows):
            for segment in row.past.chain() if row.past else ():
                end = past - row.begin + segment.end
                known[:, :, i, :, end - segment.values.shape[3] : end] = segment.values
        cache = self._new_cache()
        for layer, (keys, values) in enumerate(known):
            cache.update(keys, values, layer)
        mask = torch.arange(past + width, device=self._device) >= (past - begins)[:, None]
        ends = torch.tensor([len(row.ids) for row in rows], device=self._device)
        # The padding repeats the row's last position, because the model may have none beyond its context.
        positions = (begins[:, None] + torch.arange(width, device=self._device)).minimum(ends[:, None] - 1)
        return {"past_key_values": cache, "attention_mask": mask.long(), "position_ids": positions}

    def _keep(self, rows: Sequence[_Row], news: Sequence[tuple[int, ...]], cache, past: int) -> None:
        layers = [self._torch.stack([layer.keys[:, :, past:], layer.values[:, :, past:]]) for layer in cache.layers]
        whole = self._torch.stack(layers)  # [layers, 2, rows, heads, new tokens, size]
        for i, (row, new) in enumerate(zip(rows, news, strict=True)):
            if row.keep:
                segment = Segment(row.past, len(row.ids), whole[:, :, i, :, : len(new)].clone())
                self._cache.add(row.ids, segment)
