"""A vote that stops as soon as its winner may be trusted, with a bound on the chance that it may not.

docs/your_own_strategy.md derives the bound, and draws samples with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from scipy.special import betainc, betaln

from tts.analysis.curves import orders
from tts.voting import majority


def decided(keys: Sequence[Hashable | None], error: float) -> bool:
    """Whether some answer is shown to be more likely than each of the others; None is no answer.

    If the policy has one most likely answer, the chance that another one is ever said to be it is at most `error`,
    however often one looks: the k-th answer that appears needs evidence of k (k + 1) / error from later draws.
    """
    answers = list(dict.fromkeys(key for key in keys if key is not None))  # in the order of their first appearance
    for k, answer in enumerate(answers, 1):
        later = Counter(key for key in keys[keys.index(answer) + 1 :] if key is not None)
        wins = later.pop(answer, 0)
        losses = max(later.values(), default=0)
        if wins > losses and _log_evidence(wins, losses) >= np.log(k * (k + 1) / error):
            return True
    return False


@lru_cache(maxsize=4096)
def _log_evidence(wins: int, losses: int) -> float:
    """The likelihood of these wins with a chance drawn evenly from 1/2 to 1, over that with 1/2; its logarithm."""
    both = (wins + losses + 1) * np.log(2) + betaln(wins + 1, losses + 1)
    return both + np.log(betainc(losses + 1, wins + 1, 0.5))


def stops_at(keys: Sequence[Hashable | None], error: float, *, at_once: int = 4) -> int:
    """How many of these samples a vote takes that looks after every at_once of them; all where it is never decided."""
    looks = range(at_once, len(keys), at_once)
    return next((n for n in looks if decided(keys[:n], error)), len(keys))


def early_vote(codes: np.ndarray, error: float, *, draws: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The answer of an early vote and the samples that it took, in random orders of the samples: (draws, P) each.

    codes (P, S) as in tts.analysis.curves, -1 where there is no answer; the answer is a code too. The orders are those
    of vote_curve with the same draws and seed.
    """
    answer, taken = np.empty((2, draws, len(codes)), int)
    for i, order in enumerate(orders(*codes.shape, draws, seed)):
        for p, row in enumerate(np.take_along_axis(codes, order.astype(int), axis=1).tolist()):
            keys = [None if code < 0 else code for code in row]
            taken[i, p] = stops_at(keys, error)
            found = majority(keys[: taken[i, p]])
            answer[i, p] = -1 if found is None else found
    return answer, taken
