"""Statistics over runs that differ only in their seed."""

import math
import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from hpcai500.score.ranking.student import student_quantile
from hpcai500.spec.models import Frozen

_LEAST_FOR_OUTLIERS = 4
_OUTLYING = 3.5
_MOST_ORDERS = 20_000
_MOST_RUNS = 100_000
_ROUNDING = 1e-9
"""Rounding error of a survival estimate, which is a product of shares."""


class Summary(Frozen):
    num_runs: int
    """Runs that have the figure."""
    num_censored: int = 0
    """Runs that ended before they reached the figure: counted, not averaged."""
    mean: float | None = None
    """Mean of the runs that have the figure."""
    median: float | None = None
    """Median of all runs, by Kaplan and Meier if some never reached the figure; null if most did not."""
    standard_deviation: float | None = None
    """Sample standard deviation, with n - 1; null for fewer than two runs."""
    coefficient_of_variation: float | None = None
    """Standard deviation over mean; that of epochs to quality is HPC AI500's measure of repeatability."""
    interval_low: float | None = None
    interval_high: float | None = None
    """The 95 % interval of the mean, by Student's t."""
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    """The 95 % interval of the mean by the BCa bootstrap; null if it was not asked for, or for too few runs."""


class Outlier(NamedTuple):
    position: int
    """Position in the given values."""
    score: float
    """Modified z-score: above zero for values above the median."""


def summarize(
    values: Sequence[float | None], limits: Sequence[float] | None = None, *, bootstrap: bool = False
) -> Summary:
    """Mean, median, spread and interval of `values`; None is a run that never reached the figure.

    `limits[i]` is how long run i was observed, where a None is censored; by default, longer than every value.
    The interval is `mean ± t(0.975, n - 1) * s / sqrt(n)` (Student 1908).
    """
    known = [float(value) for value in values if value is not None]
    censored = len(values) - len(known)
    if not known:
        return Summary(num_runs=0, num_censored=censored)
    mean = mean_of(known)
    median = survival_median(values, limits)
    if len(known) < 2:
        return Summary(num_runs=len(known), num_censored=censored, mean=mean, median=median)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
    half = student_quantile(len(known)) * deviation / math.sqrt(len(known))
    resampled = _resampled(known) if bootstrap else None
    return Summary(
        num_runs=len(known),
        num_censored=censored,
        mean=mean,
        median=median,
        standard_deviation=deviation,
        coefficient_of_variation=deviation / abs(mean) if mean else None,
        interval_low=mean - half,
        interval_high=mean + half,
        bootstrap_low=resampled[0] if resampled else None,
        bootstrap_high=resampled[1] if resampled else None,
    )


def _resampled(values: Sequence[float]) -> tuple[float, float] | None:
    from hpcai500.score.ranking.bootstrap import bootstrap_interval  # NumPy, which most commands do not need

    return bootstrap_interval(values)


def mean_of(values: Sequence[float]) -> float:
    """The mean, clipped to the range of the values: rounding may put the mean of equal values outside it."""
    return min(max(statistics.fmean(values), min(values)), max(values))


def survival_median(values: Sequence[float | None], limits: Sequence[float] | None = None) -> float | None:
    """The median, where each None is a run that was observed up to its limit and did not get there.

    Kaplan and Meier (1958): the first value at which the product-limit estimate of "not there yet" is below one half.
    If the estimate is exactly one half, it is midway to the next value: the plain median if nothing is censored.
    """
    known = [float(value) for value in values if value is not None]
    if len(known) == len(values):
        return statistics.median(known) if known else None
    if not known:
        return None
    censored = [
        max(known) if limits is None else float(limits[index]) for index, value in enumerate(values) if value is None
    ]
    left, steps = 1.0, []
    for time in sorted(set(known)):
        at_risk = sum(value >= time for value in known) + sum(limit >= time for limit in censored)
        left *= 1 - known.count(time) / at_risk
        steps.append((time, left))
    below = next((time for time, left in steps if left < 0.5 - _ROUNDING), None)
    level = next((time for time, left in steps if abs(left - 0.5) <= _ROUNDING), None)
    if level is None or below is None:
        return level if below is None else below
    return (level + below) / 2


def mlperf_score(values: Sequence[float | None]) -> float | None:
    """The mean after the fastest and the slowest are dropped (MLPerf training rules, "Benchmark results").

    A run that never got there (None) is the slowest; two of them make the set invalid, and fewer than three runs
    leave nothing: None.
    """
    ordered = sorted(math.inf if value is None else float(value) for value in values)
    kept = ordered[1:-1]
    return statistics.fmean(kept) if kept and math.isfinite(kept[-1]) else None


def outliers(values: Sequence[float]) -> list[Outlier]:
    """Values whose modified z-score `0.6745 * (x - median) / MAD` exceeds 3.5 (Iglewicz and Hoaglin 1993).

    If more than half of the values are equal, the MAD is zero. The mean absolute deviation over 1.2533 then takes
    its place (the same source; IBM SPSS's form).
    """
    if len(values) < _LEAST_FOR_OUTLIERS:
        return []
    median = statistics.median(values)
    distances = [abs(value - median) for value in values]
    scale = statistics.median(distances) / 0.6745 or 1.253314 * statistics.fmean(distances)
    if not scale:
        return []
    scores = [(value - median) / scale for value in values]
    return [Outlier(index, score) for index, score in enumerate(scores) if abs(score) > _OUTLYING]


def runs_needed(coefficient_of_variation: float, half_width: float = 0.05) -> int | None:
    """The fewest runs n for which `t(0.975, n - 1) * CV / sqrt(n) <= half_width`.

    Sample size for a mean by its own interval (NIST/SEMATECH handbook 7.2.2.2, with t for both n); the CV found so
    far is taken for the true one. None: more than 100,000.
    """
    start = max(2, math.ceil((1.959964 * coefficient_of_variation / half_width) ** 2))  # t exceeds the normal's
    if start > _MOST_RUNS:
        return None
    return next(
        n for n in range(start, 2 * start + 200)
        if student_quantile(n) * coefficient_of_variation / math.sqrt(n) <= half_width
    )  # fmt: skip


def p_not_faster(values: Sequence[float | None], reference: Sequence[float | None]) -> float | None:
    """Probability of `values` this small if they converge no faster than `reference`; None if either is empty.

    Mann and Whitney (1947), one-sided: exact over all orders, ties included, if there are at most 20,000 of them,
    else by the normal approximation with its tie correction. A run that never got there (None) ranks last (Gehan
    1965). The purpose is that of MLPerf's reference convergence points.
    """
    if not values or not reference:
        return None
    from scipy import stats

    first, second = ([math.inf if value is None else float(value) for value in part] for part in (values, reference))
    ranks: list[float] = stats.rankdata([*first, *second]).tolist()  # halves at most: sums of them are exact
    if len(set(ranks)) == 1:
        return 1.0
    if math.comb(len(first) + len(second), len(first)) > _MOST_ORDERS:
        found = stats.mannwhitneyu(ranks[: len(first)], ranks[len(first) :], alternative="less", method="asymptotic")
        return float(found.pvalue)
    sums = [sum(drawn) for drawn in combinations(ranks, len(first))]
    return sum(one <= sums[0] for one in sums) / len(sums)
