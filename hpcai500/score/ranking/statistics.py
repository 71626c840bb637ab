"""Statistics over runs that differ in their seed alone."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from hpcai500.spec.models import Frozen

CONFIDENCE = 0.95
LEAST_FOR_BOOTSTRAP = 5
"""Fewer values have too few distinct resamples for the tails of an interval."""
_LEAST_FOR_OUTLIERS = 4
_OUTLYING = 3.5
_MOST_ORDERS = 20_000
_MOST_RUNS = 100_000
_NUM_RESAMPLES = 9_999
_FEW, _MOST_DRAWN = 20, 1_000_000
_FEWEST_IN_PAIRS = 8
"""NumPy adds fewer values one after the other, so that whole columns can be added with the same rounding: faster."""
_LEAST_SURE = 1.95
"""Standard errors; below it even a normal variable's difference is none at 5 %, and Student's tails are heavier."""

_Arrays = np.ndarray[tuple[int], np.dtype[np.float64]]
_Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
_Drawn = np.ndarray[tuple[int, int], np.dtype[np.int64]]


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
    mean = mean_of(known)
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


def mean_of(values: Sequence[float]) -> float:
    """The mean, held between the least and the greatest: rounding may give equal values a mean beside them."""
    return min(max(statistics.fmean(values), min(values)), max(values))


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
    sample, count = np.asarray(values, dtype=np.float64), len(values)
    with np.errstate(all="ignore"):  # values so large or so close together that nothing can be said: not finite
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


def _bca_tails(sample: _Arrays, means: _Arrays) -> tuple[float, float]:
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


def _quantile(values: _Arrays, share: float) -> float:
    """Linear between the two nearest of `values` (Hyndman and Fan 1996, type 7)."""
    position = share * len(values) + (1 - share) - 1
    before = min(max(math.floor(position), 0), len(values) - 1)
    after = min(before + 1, len(values) - 1)
    ordered = np.partition(values, (before, after))
    part = position - before
    return float((1 - part) * ordered[before] + part * ordered[after])


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
    ranks: list[float] = stats.rankdata([*first, *second]).tolist()  # halves at most: sums of them are exact
    if len(set(ranks)) == 1:
        return 1.0
    if math.comb(len(first) + len(second), len(first)) > _MOST_ORDERS:
        found = stats.mannwhitneyu(ranks[: len(first)], ranks[len(first) :], alternative="less", method="asymptotic")
        return float(found.pvalue)
    sums = [sum(drawn) for drawn in combinations(ranks, len(first))]
    return sum(one <= sums[0] for one in sums) / len(sums)


def undecided_ranks(summaries: Sequence[Summary]) -> list[tuple[int, int]]:
    """For each entry the lowest and highest rank that the data allow; `summaries` are in order, best first.

    The marginal confidence set of a rank (Mogstad, Romano, Shaikh, Wilhelm 2024, "Inference for ranks"): from
    1 + the entries surely better to all less the entries surely worse. Sure is a pair whose means differ by Welch's
    (1947) test at 5 %, two-sided, corrected by Holm (1979) over the pairs of that entry. One run decides nothing.
    """
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
    """Of each entry: the standard errors beyond which p, at `size - 1` degrees, is below 5 % over all entries."""
    from scipy import special

    distinct, position = np.unique(sizes, return_inverse=True)
    tail = (1 - CONFIDENCE) / 2 / max(len(sizes), 1)
    with np.errstate(invalid="ignore"):
        reach = np.asarray(special.stdtrit(distinct - 1, 1 - tail)) * (1 + 1e-9)
    return reach[position]


def _differing(index: int, means: _Arrays, errors: _Arrays, sizes: _Arrays, reach: _Arrays) -> _Flags:
    """Which entries surely differ from entry `index`; `errors`: squared standard errors of the means.

    p is computed only where it matters: Welch's degrees of freedom are at least those of the smaller of the two sets,
    so that beyond `reach` a pair falls at whatever place Holm gives it; below `_LEAST_SURE` it falls at none.
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
    """Two-sided p of means `distance` standard errors of their difference apart; 1 where nothing is known."""
    from scipy import special

    total = our_error + errors
    # Welch and Satterthwaite, in shares of the total so that no square overflows.
    ours, theirs = our_error / total, errors / total
    freedom = 1 / (ours**2 / (our_size - 1) + theirs**2 / (sizes - 1))
    p = 2 * special.stdtr(freedom, -distance)
    return np.asarray(np.where(np.isnan(p), 1.0, p))
