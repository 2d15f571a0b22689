"""Keys and values of scored prefixes, so that the next step of a partial solution costs only its own tokens.

A prefix is a chain of segments, one for each step. The children of a step share its chain. When the cache is full, the
least recently used segments are dropped.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class Segment:
    """Keys and values [layers, 2, heads, tokens, size] of the tokens that follow the segment `before`."""

    before: Segment | None
    end: int  # tokens from the beginning of the sequence to the last one of these
    values: Tensor

    def chain(self) -> list[Segment]:
        """This segment and all before it, from the beginning of the sequence."""
        segments, segment = [], self
        while segment is not None:
            segments.append(segment)
            segment = segment.before
        return segments[::-1]

    def copy_to(self, known: Tensor) -> None:
        """Write all keys and values from the beginning of the sequence to known [layers, 2, heads, tokens, size]."""
        for part in self.chain():
            known[:, :, :, part.end - part.values.shape[3] : part.end] = part.values


class PrefixCache:
    """At most `size` bytes of segments, found by the token ids up to their ends."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._segments: OrderedDict[bytes, Segment] = OrderedDict()

    def longest(self, ids: Sequence[int], ends: Sequence[int]) -> Segment | None:
        """The segment of the longest prefix ids[:end] in the cache, for one of the (ascending) ends."""
        for end in reversed(ends):
            segment = self._segments.get(_key(ids[:end]))
            if segment is not None:
                # Refresh the last segment first, so that no segment is dropped before those that follow it.
                for part in reversed(segment.chain()):
                    key = _key(ids[: part.end])
                    if key in self._segments:
                        self._segments.move_to_end(key)
                return segment
        return None

    def add(self, ids: Sequence[int], segment: Segment) -> None:
        """Keep a segment that ends with the last of ids."""
        key = _key(ids)
        if key in self._segments:
            return
        self._segments[key] = segment
        self._used += segment.values.nbytes
        while self._used > self._size:
            _, oldest = self._segments.popitem(last=False)
            self._used -= oldest.values.nbytes


def _key(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()
