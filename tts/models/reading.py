"""Reading tokens that follow known ones: what a scorer does, and a policy with its prompts."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tts.models.llama import Llama, attention, bias
from tts.models.prefix_cache import PrefixCache, Segment

if TYPE_CHECKING:
    from torch import Tensor, device
    from transformers import Cache

_CACHE = 1 << 29  # bytes of keys and values on a CPU, but at most an eighth of its memory
_GPU_CACHE = 8  # a GPU keeps this fraction of its memory: one in _GPU_CACHE

# ((rows [n], columns [n]) of the new tokens, **the model's inputs) -> (a score [n] for each, the cache)
Forward = Callable[..., "tuple[Tensor, Cache | None]"]


@dataclass(eq=False)
class Row:
    """Tokens to read."""

    ids: tuple[int, ...]  # from the beginning of the sequence
    past: Segment | None  # what is known of them
    positions: tuple[int, ...]  # where scores are wanted
    keep: bool  # whether other rows go on from here

    @property
    def begin(self) -> int:
        """The number of tokens that are known."""
        return self.past.end if self.past else 0


class Reader:
    """A loaded model as a function from rows to scores, and to keys and values."""

    def __init__(self, forward: Forward, device: device) -> None:
        """Its cache is None for a model whose layers keep more than keys and values of one shape.

        Layers with a sliding window are fine: the cache keeps what the window has passed; the model's mask hides it.
        """
        import torch
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

        self._torch, self._new_cache = torch, DynamicCache
        self._forward, self._device = forward, device
        self._layer = type("Known", (_Known, DynamicLayer), {})
        ids, none = torch.zeros(1, 1, dtype=torch.long, device=device), torch.zeros(0, dtype=torch.long)
        with torch.inference_mode():
            _, found = forward((none, none), input_ids=ids, use_cache=True)
        plain = type(found) is DynamicCache and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.is_initialized for layer in found.layers
        )
        self.cache: PrefixCache | None = None
        if plain and len({part.shape for layer in found.layers for part in (layer.keys, layer.values)}) == 1:
            layers = [torch.stack([layer.keys[0], layer.values[0]]) for layer in found.layers]
            self.token = torch.stack(layers)  # the keys and values of one token, [layers, 2, heads, 1, size]
            self._columns = _Columns(self.token)
            self.cache = PrefixCache(_cache_bytes(device))

    def read(self, rows: Sequence[Row]) -> list[tuple[list[float], Segment | None]]:
        """The scores of each row and, where it is to be kept, its segment; all in one pass."""
        torch = self._torch
        news = [row.ids[row.begin :] for row in rows]
        width, past = max(map(len, news)), max(row.begin for row in rows)
        # New tokens are padded on the right: a causal model does not look there from the tokens before.
        ids = torch.tensor([new + (0,) * (width - len(new)) for new in news], device=self._device)
        which = torch.tensor([i for i, row in enumerate(rows) for _ in row.positions], dtype=torch.long)
        where = torch.tensor([at - row.begin for row in rows for at in row.positions], dtype=torch.long)
        known, settings = None, {}
        with torch.inference_mode():
            if past or any(row.keep for row in rows):
                known, settings = self._with_past(rows, past, width)
            scores, _ = self._forward((which, where), input_ids=ids, use_cache=bool(settings), **settings)
            return _results(rows, scores.tolist(), known, past)

    def _with_past(self, rows: Sequence[Row], past: int, width: int) -> tuple[Tensor, dict]:
        """What is known of the rows (see _Columns), and the model's arguments for it."""
        torch = self._torch
        known = self._columns(rows, past, width)
        cache = self._new_cache()
        cache.layers = [self._layer(*of_layer, past) for of_layer in known]
        if not past:
            return known, {"past_key_values": cache}
        begins = torch.tensor([row.begin for row in rows], device=self._device)
        mask = torch.arange(past + width, device=self._device) >= (past - begins)[:, None]
        ends = torch.tensor([len(row.ids) for row in rows], device=self._device)
        # The padding repeats the row's last position, because the model may have none beyond its context.
        positions = (begins[:, None] + torch.arange(width, device=self._device)).minimum(ends[:, None] - 1)
        return known, {"past_key_values": cache, "attention_mask": mask.long(), "position_ids": positions}


class _Columns:
    """Room for the keys and values of a batch. One buffer serves all: fresh memory costs as much as copying."""

    def __init__(self, token: Tensor) -> None:
        self._token, self._buffer = token, token.new_zeros(0)

    def __call__(self, rows: Sequence[Row], past: int, width: int) -> Tensor:
        """[layers, 2, rows, heads, past + width, size]: those up to row.begin end at column past, the rest is free."""
        layers, _, heads, _, size = self._token.shape
        shape = layers, 2, len(rows), heads, past + width, size
        if math.prod(shape) > len(self._buffer):
            self._buffer = self._token.new_zeros(math.prod(shape))
        known = self._buffer[: math.prod(shape)].view(shape)
        for i, row in enumerate(rows):
            if row.past:
                row.past.copy_to(known[:, :, i, :, past - row.begin : past])
        return known


def _results(
    rows: Sequence[Row], scores: Sequence[float], known: Tensor | None, past: int
) -> list[tuple[list[float], Segment | None]]:
    """What read() returns. scores: of all rows, one after the other; known: see _Columns, new tokens begin at past."""
    found, results = iter(scores), []
    for i, row in enumerate(rows):
        segment = None
        if row.keep:
            new = known[:, :, i, :, past : past + len(row.ids) - row.begin]
            segment = Segment(row.past, len(row.ids), new.clone())
        results.append(([next(found) for _ in row.positions], segment))
    return results


class _Known:
    """A layer of transformers' cache with room for the new tokens behind `past` known ones; mixed into DynamicLayer."""

    def __init__(self, keys: Tensor, values: Tensor, past: int) -> None:
        super().__init__()
        self.keys, self.values, self._past = keys, values, past
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def get_seq_length(self) -> int:
        """The number of known tokens."""
        return self._past

    def update(self, keys: Tensor, values: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Write the new tokens' keys and values; returns all."""
        self.keys[:, :, self._past :], self.values[:, :, self._past :] = keys, values
        return self.keys, self.values


class FlatReader:
    """As Reader, for a model that reads tokens without padding; score: from hidden states [n, width] to scores [n]."""

    def __init__(self, model: Llama, score: Callable[[Tensor], Tensor]) -> None:
        import torch

        self._torch, self._model, self._score = torch, model, score
        shape = len(model), 2, model.key_heads, 1, model.size
        self.token = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self._columns = _Columns(self.token)
        self.cache = PrefixCache(_cache_bytes(model.device))

    def read(self, rows: Sequence[Row]) -> list[tuple[list[float], Segment | None]]:
        """See Reader."""
        torch, device = self._torch, self.token.device
        news = [len(row.ids) - row.begin for row in rows]
        width, past = max(news), max(row.begin for row in rows)
        ids = torch.tensor([i for row in rows for i in row.ids[row.begin :]], device=device)
        which = torch.tensor([i for i, new in enumerate(news) for _ in range(new)], device=device)  # each token's row
        place = torch.tensor([j for new in news for j in range(new)], device=device)  # and its place among the new
        begins = torch.tensor([row.begin for row in rows], device=device)
        first = [0, *itertools.accumulate(news)]
        wanted = [first[i] + at - row.begin for i, row in enumerate(rows) for at in row.positions]
        with torch.inference_mode():
            known = self._columns(rows, past, width)
            padding = torch.arange(past + width, device=device) < (past - begins)[:, None]  # [rows, columns]
            later = torch.ones(width, past + width, dtype=torch.bool, device=device).triu(past + 1)
            unseen = bias(padding[:, None] | later, known.dtype)  # [rows, new, columns]

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                keys, values = known[layer]  # [rows, heads, columns, size]
                keys[which, :, past + place], values[which, :, past + place] = k, v
                asked = q.new_zeros(len(rows), width, *q.shape[1:])
                asked[which, place] = q * self._model.scaling
                return attention(asked, keys, values, unseen)[which, place]

            hidden = self._model(ids, begins[which] + place, attend, torch.tensor(wanted, dtype=torch.long))
            return _results(rows, self._score(hidden).tolist() if wanted else [], known, past)


def make_batches(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    """Batches of rows of similar length, with at most `tokens` tokens including padding, but at least one row.

    Less than a sixth of a batch is padding, unless it is so small that a pass of its own would cost more.
    """
    batches: list[list[Row]] = []
    total = past = 0  # of the last batch: new tokens, and the most known tokens of a row
    for row in sorted(rows, key=lambda row: (len(row.ids) - row.begin, row.begin)):  # so this one has the most new ones
        new, past = len(row.ids) - row.begin, max(past, row.begin)
        padded = (len(batches[-1]) + 1) * new if batches else 0
        known = padded // new * past // 16  # a known token costs less than a new one
        if not batches or padded + known > tokens or (padded > tokens // 8 and total + new < padded * 5 / 6):
            batches.append([])
            total, past = 0, row.begin
        batches[-1].append(row)
        total += new
    return batches


def _cache_bytes(device: device) -> int:
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info()[1] // _GPU_CACHE
    return min(_CACHE, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
