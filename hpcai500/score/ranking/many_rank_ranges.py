"""`undecided_ranks` of many entries, by whole rows at once with NumPy and SciPy."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from hpcai500.score.ranking.statistics import Summary
from hpcai500.score.ranking.student import CONFIDENCE

_LEAST_SURE = 1.95
"""Standard errors; below it even a normal variable's difference is none at 5 %, and Student's tails are heavier."""

_Arrays = np.ndarray[tuple[int], np.dtype[np.float64]]
_Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


def ranges_of_many(summaries: Sequence[Summary]) -> list[tuple[int, int]]:
    """Ranges of ranks, as `undecided_ranks` defines them."""
    count = len(summaries)
    means, errors, sizes = _moments(summaries)
    reach = _surely_beyond(sizes)
    ranges = []
    for index in range(count):
        if sizes[index] < 2:
            ranges.append((1, count))
            continue
        sure = _differing(index, means, errors, sizes, reach)
        better, worse = int(sure[:index].sum()), int(sure[index + 1 :].sum())
        ranges.append((1 + better, count - worse))
    return ranges


def _moments(summaries: Sequence[Summary]) -> tuple[_Arrays, _Arrays, _Arrays]:
    rows = [
        (s.mean or 0.0, math.nan if s.standard_deviation is None else s.standard_deviation, s.num_runs)
        for s in summaries
    ]
    means, deviations, sizes = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return means, deviations**2 / np.maximum(sizes, 1), sizes


def _surely_beyond(sizes: _Arrays) -> _Arrays:
    """For each entry, the standard errors beyond which p, at `size - 1` degrees, is below 5 % over all entries."""
    distinct, position = np.unique(sizes, return_inverse=True)
    share = (1 - CONFIDENCE) / 2 / max(len(sizes), 1)
    with np.errstate(invalid="ignore"):
        reach = np.asarray(special.stdtrit(distinct - 1, 1 - share)) * (1 + 1e-9)
    return reach[position]


def _differing(index: int, means: _Arrays, errors: _Arrays, sizes: _Arrays, reach: _Arrays) -> _Flags:
    """Which entries surely differ from entry `index`; `errors`: squared standard errors of the means.

    p is computed only for pairs that it can decide. Welch's degrees of freedom are at least those of the smaller set.
    So beyond `reach` a pair is rejected at every place in Holm's order, and below `_LEAST_SURE` at none.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        total = errors[index] + errors
        distance = np.abs(means[index] - means) / np.sqrt(total)
        sure: _Flags = distance > np.maximum(reach[index], reach)
        unclear = np.flatnonzero(~sure & (distance >= _LEAST_SURE))
        p = _welch(distance[unclear], errors[index], errors[unclear], sizes[index], sizes[unclear])
    order = np.argsort(p, kind="stable")
    left = np.maximum(len(means) - 1 - int(sure.sum()) - np.arange(len(p)), 1)
    sure[unclear[order]] = np.cumprod(p[order] <= (1 - CONFIDENCE) / left).astype(bool)
    return sure


def _welch(distance: _Arrays, our_error: float, errors: _Arrays, our_size: float, sizes: _Arrays) -> _Arrays:
    """Two-sided p of means `distance` standard errors of their difference apart; 1 if nothing is known."""
    total = our_error + errors
    # Welch and Satterthwaite, in shares of the total so that no square overflows.
    ours, theirs = our_error / total, errors / total
    freedom = 1 / (ours**2 / (our_size - 1) + theirs**2 / (sizes - 1))
    p = 2 * special.stdtr(freedom, -distance)
    return np.asarray(np.where(np.isnan(p), 1.0, p))
