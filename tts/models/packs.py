"""Decoding many rows at once: rows that continue the same prefix stand in packs and read its keys and values together.

Attention is what limits a small model: one product a row costs more in calls and in memory traffic than in arithmetic.
A pack has up to PACK rows. Its keys (and values) lie side by side: first the prefix that all its rows share, then one
column a row for each new token. One product gives the scores of all its rows at all columns, and the mask hides from
each row the columns of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tts.models.llama import Llama, attention, bias
from tts.models.prefix_cache import Segment

if TYPE_CHECKING:
    from torch import Tensor, device

PACK = 4  # the children of a step that is kept, in the writeup's searches
_STEP = 16  # columns of a row that are made at first


class Cohort:
    """Rows that began together, so that all of them have as many new tokens."""

    def __init__(self, packs: Sequence[tuple[Segment | None, int]], like: Tensor, *, width: int = PACK) -> None:
        """packs: for each, the segment that its rows continue and how many rows (up to width) it has.

        like: keys and values [layers, 2, heads, tokens, size] of any segment, for its shape, type and device.
        """
        import torch

        self._torch, self._width = torch, width
        layers, _, heads, _, size = like.shape
        ends = [segment.end if segment else 0 for segment, _ in packs]
        self._prefix, self.age = max(ends), 0
        # [layers, 2, packs, heads, columns, size]: prefixes end at column _prefix; new token t of slot s is at
        # column _prefix + width * t + s
        self._known = like.new_zeros(layers, 2, len(packs), heads, self._prefix + self._width * _STEP, size)
        for i, (segment, _) in enumerate(packs):
            if segment:
                segment.copy_to(self._known[:, :, i, :, self._prefix - segment.end : self._prefix])
        self._first = self._prefix - torch.tensor(ends, device=like.device)  # each prefix's first column
        self._slots = torch.tensor(
            [self._width * i + s for i, (_, count) in enumerate(packs) for s in range(count)], device=like.device
        )
        self._make_bias()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def positions(self) -> Tensor:
        """The position in its sequence of each row's next token, [rows]."""
        return (self._prefix - self._first)[self._slots // self._width] + self.age

    def grow(self) -> None:
        """Make room for one more token of each row."""
        if self._prefix + self._width * (self.age + 1) > self._known.shape[4]:
            more = self._width * max(_STEP, self.age)
            self._known = self._torch.nn.functional.pad(self._known, (0, 0, 0, more))
            self._make_bias()

    def select(self, kept: Tensor) -> None:
        """Keep these rows (indices, ascending). Packs without rows go, once they are many."""
        torch = self._torch
        self._slots = self._slots[kept]
        packs = self._slots.div(self._width, rounding_mode="floor").unique()
        if len(packs) <= 0.8 * len(self._first):
            moved = torch.searchsorted(packs, self._slots // self._width)
            self._slots = moved * self._width + self._slots % self._width
            self._known, self._first = self._known[:, :, packs], self._first[packs]
            self._make_bias()

    def cut(self, row: int) -> Tensor:
        """A copy of the keys and values of a row's new tokens: [layers, 2, heads, age, size]."""
        pack, slot = divmod(int(self._slots[row]), self._width)
        begin = self._prefix + slot
        return self._known[:, :, pack, :, begin : begin + self._width * self.age : self._width].clone()

    def _make_bias(self) -> None:
        torch = self._torch
        columns = torch.arange(self._known.shape[4], device=self._first.device)
        new = columns - self._prefix
        own = new % self._width == torch.arange(self._width, device=self._first.device)[:, None]  # [width, columns]
        seen = torch.where(new < 0, columns >= self._first[:, None, None], own)  # [packs, width, columns]
        self._bias = bias(~seen, self._known.dtype)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """Attention of queries q [rows, query heads, size] to what is known and the new keys and values [rows, ...]."""
        packs = len(self._first)
        at, full = self._prefix + self._width * self.age, len(self._slots) == self._width * packs

        def to_slots(of_rows: Tensor) -> Tensor:  # [rows, ...] to [packs, width, ...]
            if not full:
                slots = of_rows.new_zeros(self._width * packs, *of_rows.shape[1:])
                slots[self._slots] = of_rows
                of_rows = slots
            return of_rows.reshape(packs, self._width, *of_rows.shape[1:])

        self._known[layer, 0, :, :, at : at + self._width] = to_slots(k).transpose(1, 2)
        self._known[layer, 1, :, :, at : at + self._width] = to_slots(v).transpose(1, 2)
        keys, values = self._known[layer, :, :, :, : at + self._width]  # [packs, heads, columns, size]
        mixed = attention(to_slots(q * scaling), keys, values, self._bias[:, :, : at + self._width]).flatten(0, 1)
        return mixed if full else mixed[self._slots]


def room(device: device) -> int:
    """Bytes for the keys and values of rows."""
    import torch

    return torch.cuda.mem_get_info()[1] // 4 if device.type == "cuda" else 1 << 30


def decode(model: Llama, cohorts: Sequence[Cohort], ids: Tensor) -> Tensor:
    """Logits [rows, vocabulary] after one more token, ids [rows], of each row. The cohorts grow older by it."""
    import torch

    for cohort in cohorts:
        cohort.grow()
    sizes = [len(cohort) for cohort in cohorts]

    def attend(layer: int, *of_rows: Tensor) -> Tensor:
        parts = zip(cohorts, *(one.split(sizes) for one in of_rows), strict=True)
        mixed = [cohort.attend(layer, q, k, v, model.scaling) for cohort, q, k, v in parts]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    hidden = model(ids, torch.cat([cohort.positions for cohort in cohorts]), attend)
    for cohort in cohorts:
        cohort.age += 1
    return model.logits(hidden)
