"""Seeds: one for each request, hashed from what the request is, never taken from a batch, a counter or the clock.

So a sample stays the same whatever runs beside it and in whatever order, on every machine and in every Python (the
built-in hash() of a string changes from process to process). The values are part of the store's contract: changing
them makes every stored result unrepeatable, and the tests pin some.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence


def sample_seed(seed: int, problem_id: str, index: int) -> int:
    """The seed of independent sample number index (from 0) of a problem: 63 bits.

    It depends neither on N nor on the strategy, so majority voting and Best-of-N share their samples and a larger N
    only adds to them.
    """
    return _digest("sample", seed, problem_id, index)


def node_seed(seed: int, problem_id: str, strategy: str, n: int, path: Sequence[int]) -> int:
    """The seed of one node of a search: 63 bits. path names the node: its tree, then the child taken at each step."""
    return _digest("node", seed, problem_id, strategy, n, list(path))


def _digest(*parts: str | int | list[int]) -> int:
    """The first 63 bits of the SHA-256 of the parts as JSON, which keeps ("1", 2) and ("12",) apart."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"), default=int)  # int: numpy's whole numbers
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big") >> 1
