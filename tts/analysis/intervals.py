"""Intervals: one bootstrap over problems for everything, and Wilson's for a share of few problems. Arrays in and out.

Problems are resampled, because they are what a new benchmark would draw again.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtri  # scipy.stats takes a second to import

from tts.errors import InputError


@lru_cache(maxsize=2)  # every interval of a notebook resamples the same problems
def resample_counts(problems: int, *, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each problem is drawn in each bootstrap resample: (resamples, problems) of whole numbers."""
    counts = np.random.default_rng(seed).multinomial(problems, np.full(problems, 1 / problems), size=resamples)
    counts.flags.writeable = False
    return counts


def central_interval(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Low and high end of the central interval over resamples: (resamples, ...) -> (2, ...).

    Resamples without a value (NaN) are left out; NaN where no resample has one.
    """
    kept = ~np.isnan(values).all(axis=0)
    ends = np.full((2, *values.shape[1:]), np.nan)
    ends[:, kept] = np.nanquantile(values[:, kept], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends


def mean_interval(values: np.ndarray, *, level: float = 0.95, resamples: int = 2000) -> np.ndarray:
    """Mean over problems with its bootstrap interval: values (P, ...) -> (3, ...): mean, low, high.

    Average over seeds first, so that they stay nested in their problem. For a paired interval pass the difference of
    two methods on the same problems.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise InputError("values: no problems to average over")
    counts = resample_counts(len(values), resamples=resamples)
    means = np.tensordot(counts / len(values), values, axes=1)
    low, high = central_interval(means, level)
    mean = values.mean(axis=0)
    return np.stack([mean, np.minimum(low, mean), np.maximum(high, mean)])  # rounding: equal values have no width


def wilson(right: np.ndarray, total: np.ndarray, *, level: float = 0.95) -> np.ndarray:
    """Share with its Wilson interval (3, ...): what a share over few problems needs. right may be a sum of fractions.

    Source: Wilson 1927; with fractions (accuracies averaged over draws or seeds) it is wider than it has to be.
    """
    right, total = np.broadcast_arrays(np.asarray(right, float), np.asarray(total, float))
    if (total <= 0).any():
        raise InputError("a quintile has no problems: give more problems")
    z = ndtri((1 + level) / 2)
    share = right / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    low = np.where(right <= 0, 0.0, middle - half)
    high = np.where(right >= total, 1.0, middle + half)
    return np.stack([share, low, high])
