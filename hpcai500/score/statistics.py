"""Statistics over runs that differ in their seed alone."""

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hpcai500.spec.models import Frozen

CONFIDENCE = 0.95
LEAST_FOR_BOOTSTRAP = 5
"""Fewer values have too few distinct resamples for the tails of an interval."""
_LEAST_FOR_OUTLIERS = 4
_OUTLYING = 3.5
_MOST_ORDERS = 20_000
_MOST_RUNS = 100_000


class Summary(Frozen):
    num_runs: int
    """Runs that have the figure."""
    num_censored: int = 0
    """Runs that ended before the figure was reached: counted, not averaged."""
    mean: float | None = None
    """Of the runs that have the figure."""
    median: float | None = None
    """Of all runs, by Kaplan and Meier where some never got there; null where fewer than half did."""
    standard_deviation: float | None = None
    """Of the sample (n - 1); null for fewer than two runs."""
    coefficient_of_variation: float | None = None
    """Standard deviation over mean: HPC AI500's measure of repeatability when taken of epochs to quality."""
    interval_low: float | None = None
    interval_high: float | None = None
    """The 95 % interval of the mean, by Student's t."""
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    """The same by the BCa bootstrap; null where it was not asked for or the runs are too few."""


class Outlier(NamedTuple):
    position: int
    """In the values given."""
    score: float
    """Modified z-score: above zero for values above the median."""


def summarize(
    values: Sequence[float | None], limits: Sequence[float] | None = None, *, bootstrap: bool = False
) -> Summary:
    """Mean, median, spread and interval of `values`; None is a run that never got there.

    `limits[i]` is how far run i was watched, at which a None is censored; without it, further than every value.
    The interval is `mean ± t(0.975, n - 1) * s / sqrt(n)` (Student 1908).
    """
    known = [float(value) for value in values if value is not None]
    censored = len(values) - len(known)
    if not known:
        return Summary(num_runs=0, num_censored=censored)
    mean = statistics.fmean(known)
    median = survival_median(values, limits)
    if len(known) < 2:
        return Summary(num_runs=len(known), num_censored=censored, mean=mean, median=median)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
    half = student_quantile(len(known)) * deviation / math.sqrt(len(known))
    resampled = bootstrap_interval(known) if bootstrap else None
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


@lru_cache(maxsize=1024)
def student_quantile(num_values: int) -> float:
    """t(0.975, n - 1): the half-width of a 95 % interval of a mean in standard errors (Student 1908)."""
    from scipy import special

    return float(special.stdtrit(num_values - 1, (1 + CONFIDENCE) / 2))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean by the bias-corrected and accelerated bootstrap (Efron 1987); None if too few.

    Resamples are drawn from a fixed seed, so that the same values give the same interval.
    """
    if len(values) < LEAST_FOR_BOOTSTRAP:
        return None
    if len(set(values)) == 1:  # the acceleration would be 0 / 0
        return values[0], values[0]
    from scipy import stats

    found = stats.bootstrap(
        (np.asarray(values),), np.mean, confidence_level=CONFIDENCE, n_resamples=9_999, method="BCa",
        rng=np.random.default_rng(500),
    ).confidence_interval  # fmt: skip
    return (float(found.low), float(found.high)) if math.isfinite(found.low + found.high) else None


def survival_median(values: Sequence[float | None], limits: Sequence[float] | None = None) -> float | None:
    """The median where each None is a run that was watched up to its limit and did not get there.

    Kaplan and Meier (1958): the first value at which the product-limit estimate of "not there yet" is below one half;
    where it is exactly one half, midway to the next value, which is the plain median when nothing is censored.
    """
    known = [float(value) for value in values if value is not None]
    if len(known) == len(values):
        return statistics.median(known) if known else None
    from scipy import stats

    beyond = max(known, default=0.0)
    watched = [
        beyond if limits is None else float(limits[index]) for index, value in enumerate(values) if value is None
    ]
    if not known:
        return None
    survival = stats.ecdf(stats.CensoredData(uncensored=known, right=watched)).sf
    at = survival.quantiles[np.isin(survival.quantiles, known)]
    left = survival.evaluate(at)
    below = at[left < 0.5 - 1e-12]
    level = at[np.isclose(left, 0.5)]
    if len(level):
        return float((level[0] + below[0]) / 2 if len(below) else level[0])
    return float(below[0]) if len(below) else None


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

    Where more than half of the values are equal the MAD is zero, and the mean absolute deviation over 1.2533 takes
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
    """How likely `values` as small as these are, if they converge no faster than `reference`; None without either.

    Mann and Whitney (1947), one-sided: exact over all orders, ties included, where there are at most 20,000 of them,
    else by the normal approximation with its tie correction. A run that never got there (None) ranks last (Gehan
    1965). The purpose is that of MLPerf's reference convergence points.
    """
    if not values or not reference:
        return None
    from scipy import stats

    first, second = ([math.inf if value is None else float(value) for value in part] for part in (values, reference))
    largest = 1 + max((value for value in (*first, *second) if math.isfinite(value)), default=0.0)
    first, second = ([min(value, largest) for value in part] for part in (first, second))
    if len({*first, *second}) == 1:
        return 1.0
    few = math.comb(len(first) + len(second), len(first)) <= _MOST_ORDERS
    method = stats.PermutationMethod(n_resamples=_MOST_ORDERS) if few else "asymptotic"
    return float(stats.mannwhitneyu(first, second, alternative="less", method=method).pvalue)


def undecided_ranks(summaries: Sequence[Summary]) -> list[tuple[int, int]]:
    """For each entry the lowest and highest rank that the data allow; `summaries` are in order, best first.

    The marginal confidence set of a rank (Mogstad, Romano, Shaikh, Wilhelm 2024, "Inference for ranks"): from
    1 + the entries surely better to all less the entries surely worse. Sure is a pair whose means differ by Welch's
    (1947) test at 5 %, two-sided, corrected by Holm (1979) over the pairs of that entry. One run decides nothing.
    """
    count = len(summaries)
    means, variances, sizes = _moments(summaries)
    ranges = []
    for index in range(count):
        if sizes[index] < 2:
            ranges.append((1, count))
            continue
        sure = _holm(_welch(index, means, variances, sizes))
        better, worse = int(sure[:index].sum()), int(sure[index + 1 :].sum())
        ranges.append((1 + better, count - worse))
    return ranges


_Arrays = np.ndarray[tuple[int], np.dtype[np.float64]]


def _moments(summaries: Sequence[Summary]) -> tuple[_Arrays, _Arrays, _Arrays]:
    rows = [
        (s.mean or 0.0, math.nan if s.standard_deviation is None else s.standard_deviation, s.num_runs)
        for s in summaries
    ]
    means, deviations, sizes = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return means, deviations**2 / np.maximum(sizes, 1), sizes


def _welch(index: int, means: _Arrays, errors: _Arrays, sizes: _Arrays) -> _Arrays:
    """Two-sided p of entry `index` against each, 1 where nothing can be said; `errors`: squared standard errors."""
    from scipy import special

    with np.errstate(divide="ignore", invalid="ignore"):
        total = errors[index] + errors
        difference = np.abs(means[index] - means)
        # Welch and Satterthwaite, in shares of the total so that no square overflows.
        ours, theirs = errors[index] / total, errors / total
        freedom = 1 / (ours**2 / (sizes[index] - 1) + theirs**2 / (sizes - 1))
        p = 2 * special.stdtr(freedom, -difference / np.sqrt(total))
    p = np.where((total == 0) & (difference > 0), 0.0, p)
    p = np.where(np.isnan(p), 1.0, p)
    p[index] = 1.0
    return p


def _holm(p: _Arrays) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which hypotheses fall at 5 %; the entry itself, with p = 1, is none of them."""
    order = np.argsort(p, kind="stable")
    left = np.maximum(len(p) - 1 - np.arange(len(p)), 1)
    falls = np.cumprod(p[order] <= (1 - CONFIDENCE) / left).astype(bool)
    sure = np.zeros(len(p), dtype=bool)
    sure[order] = falls
    return sure
