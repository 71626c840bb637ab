"""What a ranking holds: lists of entries, each entry the runs of one experiment on one system."""

from hpcai500.score.ranking.curves import Curve
from hpcai500.score.ranking.metrics import METRICS, By
from hpcai500.score.ranking.scaling import ScalingSeries, Sensitivity
from hpcai500.score.ranking.statistics import Summary
from hpcai500.score.record.source import SourceName
from hpcai500.spec.models import Frozen


class RunFigures(Frozen):
    """One run of an entry."""

    seed: int
    run_id: str
    path: SourceName
    """The run's folder."""
    achieved_quality: float
    flops: float
    vflops: float
    vflops_per_watt: float | None
    total_sec: float
    train_sec: float
    eval_sec: float
    init_sec: float
    time_to_quality_sec: float | None
    epochs_to_quality: int | None
    energy_joules: float | None
    num_interruptions: int
    interrupted_sec: float
    """Down, or work that was done again."""
    curve: Curve | None = None
    """Null if its epochs are unknown, and beyond the first 200 entries."""


class Entry(Frozen):
    """Runs of one experiment on one system, over seeds."""

    rank: int | None = None
    """Rank by the mean; equal means share one. Null if the figure is missing: `not_placed` is the reason."""
    rank_low: int | None = None
    rank_high: int | None = None
    """The ranks that the data allow at 95 % confidence."""
    not_placed: str | None = None
    system: str
    accelerator: str
    world_size: int
    nodes: int
    backend: str
    precision: str
    experiment_digest: str
    seeds: tuple[int, ...]
    num_diverged: int = 0
    """Runs whose loss became infinite or NaN: counted as never having reached the target."""
    num_breaches: int | None = None
    """Breaches of the rules of the entry's level; null if it was not checked."""
    unverified: bool = False
    """A run of it comes from an archive that was altered after it was packed."""
    overrides: tuple[str, ...]
    quality: Summary
    flops: Summary
    vflops: Summary
    vflops_per_accelerator: float
    """Mean VFLOPS over the ranks: one rank an accelerator."""
    vflops_per_watt: Summary
    time_sec: Summary
    time_to_quality_sec: Summary
    epochs_to_quality: Summary
    energy_joules: Summary
    mlperf_time_sec: float | None
    """Mean time to quality without the fastest and the slowest run."""
    runs: tuple[RunFigures, ...]
    layers: tuple[tuple[tuple[str, str], ...], ...] = ()
    """Names and values of layers 1 to 9, of the first run; empty beyond the first 200 entries."""


class RankedList(Frozen):
    """Entries that may be compared: one workload, one problem, one level, one exponent."""

    workload: str
    title: str
    problem: str
    level: str
    metric: str
    target_quality: float
    penalty_exponent: int
    by: By
    entries: tuple[Entry, ...]
    scaling: tuple[ScalingSeries, ...] = ()
    sensitivity: Sensitivity | None = None


def figure_of(entry: Entry, by: By) -> Summary:
    """What `by` ranks an entry by."""
    found: Summary = METRICS[by].summary_of(entry)
    return found


def known_of(entry: Entry, figure: Summary) -> tuple[int, int]:
    """How many runs of `entry` have `figure`, and of how many; if these differ, its mean orders nothing."""
    return figure.num_runs, max(len(entry.runs), figure.num_runs + figure.num_censored)


def is_known(entry: Entry, figure: Summary) -> bool:
    """Whether every run of `entry` has `figure`."""
    known, every = known_of(entry, figure)
    return known == every and figure.mean is not None
