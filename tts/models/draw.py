"""The next token of each row, drawn from its logits.

A draw needs one uniform number: the token is the first, in order of id, at which the cumulated probability exceeds it.
The number is a function of the row's seed and of the token's place in its completion alone, so a row's text doesn't
depend on the other rows, except through rounding: another batch shape moves float32 logits by about 1e-6, which may
change one token in a million; with float64 it changes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tts.policy import Sampling

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = (np.uint64(i) for i in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's output function: uint64 to uint64, each bit of the result depends on all bits of the number.

    (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.)
    """
    z = numbers + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


def uniforms(streams: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Number `place` of each stream, uniform in [0, 1): SplitMix64 as a function of its counter."""
    return (mix(streams + places.astype(np.uint64) * _GOLDEN) >> np.uint64(11)) * 2.0**-53


class Drawing:
    """How rows draw: their settings as arrays, one entry a row."""

    def __init__(self, settings: Sequence[Sampling]) -> None:
        seeds = np.array([one.seed & (2**64 - 1) for one in settings], dtype=np.uint64)
        self._streams = mix(seeds)  # mixed once more, so that seeds in a row begin far apart
        self._temperature = np.array([one.temperature for one in settings])
        self._top_p = np.array([one.top_p for one in settings])

    def select(self, kept: np.ndarray) -> None:
        """Keep these rows."""
        self._streams, self._temperature, self._top_p = (
            of[kept] for of in (self._streams, self._temperature, self._top_p)
        )

    def draw(self, logits: Tensor, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ids, their log-probabilities at temperature 1), one a row, from logits [rows, vocabulary].

        places: how many tokens each row has drawn already. Temperature 0 takes the largest logit, a tie the first.
        """
        import torch

        logits = logits if logits.dtype == torch.float64 else logits.float()
        greedy = self._temperature == 0

        def column(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(logits.device)[:, None]

        scaled = logits / column(np.where(greedy, 1.0, self._temperature)).to(logits.dtype)
        if (self._top_p < 1).any():
            ordered, order = scaled.softmax(-1).sort(-1, descending=True)
            outside = ordered.cumsum(-1) - ordered >= column(self._top_p)  # keep the smallest set that reaches top_p
            scaled = scaled.masked_fill(outside.scatter(1, order, outside), -torch.inf)
        cumulated = scaled.softmax(-1).cumsum(-1, dtype=torch.float64)
        total = cumulated[:, -1:]
        below = torch.minimum(column(uniforms(self._streams, places)) * total, total.nextafter(torch.zeros_like(total)))
        ids = torch.searchsorted(cumulated, below, right=True).clamp(max=logits.shape[-1] - 1)  # NaN would be beyond
        if greedy.any():
            ids = torch.where(column(greedy), logits.argmax(-1, keepdim=True), ids)
        logprobs = logits.gather(1, ids)[:, 0] - logits.logsumexp(-1)
        return ids[:, 0].cpu().numpy(), logprobs.double().cpu().numpy()
