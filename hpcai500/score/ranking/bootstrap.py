"""The BCa bootstrap of a mean."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from hpcai500.score.ranking.student import CONFIDENCE

LEAST_FOR_BOOTSTRAP = 5
"""Fewer values have too few distinct resamples for the tails of an interval."""
_NUM_RESAMPLES = 9_999
_FEW, _MOST_DRAWN = 20, 1_000_000
_FEWEST_IN_PAIRS = 8
"""NumPy adds fewer values one after the other, so that whole columns can be added with the same rounding: faster."""

_Array = np.ndarray[tuple[int], np.dtype[np.float64]]
_Drawn = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean by the bias-corrected and accelerated bootstrap (Efron 1987); None if too few.

    Resamples are drawn from a fixed seed, so that the same values give the same interval.
    """
    if len(values) < LEAST_FOR_BOOTSTRAP:
        return None
    if len(set(values)) == 1:  # the acceleration would be 0 / 0
        return values[0], values[0]
    sample, count = np.asarray(values, dtype=np.float64), len(values)
    with np.errstate(all="ignore"):  # values so large or so close together that the means are not finite
        means = np.concatenate([sample[drawn].mean(axis=-1) for drawn in _resamples(count)])
        low, high = _bca_tails(sample, means)
    if not math.isfinite(low + high):
        return None
    found = _quantile(means, low), _quantile(means, high)
    return found if math.isfinite(sum(found)) else None


def _resamples(count: int) -> Iterable[_Drawn]:
    """The positions that make up each resample of `count` values, [resamples, count], in parts that fit in memory."""
    return _few_resamples(count) if count <= _FEW else _drawn(count)


@lru_cache(maxsize=8)
def _few_resamples(count: int) -> tuple[_Drawn, ...]:
    return tuple(_drawn(count))


def _drawn(count: int) -> Iterator[_Drawn]:
    rng = np.random.default_rng(500)
    order: Literal["F", "C"] = "F" if count < _FEWEST_IN_PAIRS else "C"
    step = max(1, _MOST_DRAWN // count)
    for start in range(0, _NUM_RESAMPLES, step):
        yield np.asarray(rng.integers(0, count, (min(step, _NUM_RESAMPLES - start), count)), order=order)


def _bca_tails(sample: _Array, means: _Array) -> tuple[float, float]:
    """The shares of the resampled `means` below the interval's ends (Efron and Tibshirani 1993, chapter 14.3)."""
    from scipy import special

    count = len(sample)
    mean = sample.mean()
    below = np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)
    bias = special.ndtri(below / (2 * len(means)))
    others = (np.concatenate((sample[:position], sample[position + 1 :])) for position in range(count))
    without_one = np.array([np.add.reduce(left) for left in others]) / (count - 1)
    pull = (count - 1) * (without_one.mean() - without_one)
    acceleration = 1 / 6 * ((pull**3).sum() / count**3) / ((pull**2).sum() / count**2) ** 1.5
    z = special.ndtri((1 - CONFIDENCE) / 2)
    low, high = (special.ndtr(bias + (bias + at) / (1 - acceleration * (bias + at))) for at in (z, -z))
    return float(low), float(high)


def _quantile(values: _Array, share: float) -> float:
    """Linear between the two nearest of `values` (Hyndman and Fan 1996, type 7)."""
    position = share * len(values) + (1 - share) - 1
    before = min(max(math.floor(position), 0), len(values) - 1)
    after = min(before + 1, len(values) - 1)
    ordered = np.partition(values, (before, after))
    part = position - before
    return float((1 - part) * ordered[before] + part * ordered[after])
