"""Statistics over runs that differ in their seed alone."""

import math
import statistics
from collections.abc import Sequence

from hpcai500.spec.models import Frozen

CONFIDENCE = 0.95


class Summary(Frozen):
    num_runs: int
    """Runs that have the figure."""
    num_censored: int = 0
    """Runs that ended before the figure was reached: counted, not averaged."""
    mean: float | None = None
    standard_deviation: float | None = None
    """Of the sample (n - 1); null for fewer than two runs."""
    coefficient_of_variation: float | None = None
    """Standard deviation over mean: HPC AI500's measure of repeatability when taken of epochs to quality."""
    interval_low: float | None = None
    interval_high: float | None = None
    """The 95 % interval of the mean, by Student's t."""


def summarize(values: Sequence[float | None]) -> Summary:
    """Mean, spread and interval of `values`; None is a run that never got there.

    The interval is `mean ± t(0.975, n - 1) * s / sqrt(n)` (Student 1908).
    """
    known = [value for value in values if value is not None]
    censored = len(values) - len(known)
    if not known:
        return Summary(num_runs=0, num_censored=censored)
    mean = statistics.fmean(known)
    if len(known) < 2:
        return Summary(num_runs=len(known), num_censored=censored, mean=mean)
    deviation = statistics.stdev(known)
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(known) - 1)) * deviation / math.sqrt(len(known))
    return Summary(
        num_runs=len(known),
        num_censored=censored,
        mean=mean,
        standard_deviation=deviation,
        coefficient_of_variation=deviation / mean if mean else None,
        interval_low=mean - half,
        interval_high=mean + half,
    )
