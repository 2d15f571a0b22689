"""Keys and values of prefixes that were scored, so that the next step of a partial solution costs its own tokens only.

A prefix is a chain of segments, each with the tokens of one step: the children of a step share its chain. Segments are
let go in the order in which they were last used, by size.
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
    """Keys and values [layers, 2, heads, tokens, size] of the tokens that follow those of before."""

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


class PrefixCache:
    """Segments by the token ids up to their ends, at most `size` bytes of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._segments: OrderedDict[bytes, Segment] = OrderedDict()

    def longest(self, ids: Sequence[int], ends: Sequence[int]) -> Segment | None:
        """The segment of the longest prefix of ids that is here, of those with one of the (ascending) ends."""
        for end in reversed(ends):
            segment = self._segments.get(_key(ids[:end]))
            if segment is not None:
                # From the newest to the oldest, so that none is let go before those that follow it.
                for part in reversed(segment.chain()):
                    key = _key(ids[: part.end])
                    if key in self._segments:
                        self._segments.move_to_end(key)
                return segment
        return None

    def add(self, ids: Sequence[int], segment: Segment) -> None:
        """Keep the segment that ends where ids end."""
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
