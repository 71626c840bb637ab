"""The columns of a ranking for every format: heading, meaning, text and plain value of each."""

from collections.abc import Callable
from typing import NamedTuple

from hpcai500.score.ranking.entries import Entry, RankedList, figure_of, is_known, known_of
from hpcai500.score.ranking.metrics import METRICS, By
from hpcai500.score.ranking.statistics import Summary
from hpcai500.text import counted, scaled, si

Value = str | float | int | None


def quantity(value: float | None, unit: str) -> str:
    """`872.5 J`, `1.2 kJ`; `-` for None."""
    if value is None:
        return "-"
    digits, prefix = scaled(value)
    return f"{digits} {prefix}{unit}"


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def percent(value: float | None, decimals: int = 2) -> str:
    return "-" if value is None else f"{value:.{decimals}%}"


def rank_text(entry: Entry) -> str:
    """`2`, or `2-3` if the data cannot decide; `-` for an entry without a rank."""
    if entry.rank is None:
        return "-"
    if entry.rank_low == entry.rank_high:
        return str(entry.rank)
    return f"{entry.rank_low}-{entry.rank_high}"


def reached(entry: Entry) -> str:
    """`2/3`: runs that reached the target of all runs, including those that diverged."""
    return f"{entry.epochs_to_quality.num_runs}/{len(entry.seeds) + entry.num_diverged}"


def interval(summary: Summary) -> str:
    """The 95 % interval of the mean, low to high."""
    return span(summary.interval_low, summary.interval_high)


def span(low: float | None, high: float | None) -> str:
    """`24.91–25.13 G`: the prefix once if both have the same."""
    if low is None or high is None:
        return "-"
    (digits, prefix), (_, prefix_of_high) = scaled(low), scaled(high)
    return f"{digits if prefix == prefix_of_high else si(low)}\N{EN DASH}{si(high)}"


def half_width(summary: Summary) -> str:
    """Half the interval over the mean, as `±8.5%`."""
    if summary.interval_high is None or not summary.mean:
        return "-"
    return f"±{(summary.interval_high - summary.mean) / summary.mean:.1%}"


def of_runs(entry: Entry, figure: Summary) -> str:
    """`4 of 5 runs` if only some runs have the figure, else nothing."""
    known, every = known_of(entry, figure)
    return f"{known} of {every} runs" if 0 < known < every else ""


def ranked_by(entry: Entry, by: By) -> str:
    """The figure that a list is ordered by, with the interval of its mean; nothing for VFLOPS."""
    figure = figure_of(entry, by)
    if by == "vflops" or figure.mean is None:
        return ""
    few = of_runs(entry, figure)
    value = f"{METRICS[by].title} {si(figure.mean)} {METRICS[by].unit}".rstrip()
    return f"{value}{f' ({few})' if few else ''}, 95 % interval {interval(figure)}"


def interruptions(entry: Entry) -> str:
    """How many of an entry's runs were interrupted and continued, and what that cost; nothing if none was."""
    stopped = [run for run in entry.runs if run.num_interruptions]
    if not stopped:
        return ""
    lost = sum(run.interrupted_sec for run in stopped)
    was = "was interrupted" if len(stopped) == 1 else "were interrupted"
    return (
        f"{len(stopped)} of {len(entry.runs)} runs {was}: {number(lost)} s of waiting and repeated work in the time"
    )


def compliance(entry: Entry) -> str:
    """Whether the entry keeps the rules of its level."""
    if entry.unverified:
        return "UNVERIFIED: altered archive"
    if entry.num_breaches is None:
        return "not checked"
    if entry.num_breaches == 0:
        return "compliant"
    return counted(entry.num_breaches, "breach", "breaches")


class Column(NamedTuple):
    key: str
    heading: str
    meaning: str
    text: Callable[[Entry], str]
    value: Callable[[Entry], Value]
    """The value to sort by, in base units."""


_Columns = tuple[Callable[[Entry], str], Callable[[Entry], Value]]


def _summary_column(field: str, text: Callable[[float | None], str], statistic: str = "mean") -> _Columns:
    """Text and sort value of a summary: sorted last unless every run has it, as `rank --by` places entries."""

    def shown(entry: Entry) -> str:
        figure = getattr(entry, field)
        found: float | None = getattr(figure, statistic)
        known, every = known_of(entry, figure)
        return text(found) + (f" ({known} of {every})" if found is not None and 0 < known < every else "")

    def value(entry: Entry) -> Value:
        figure = getattr(entry, field)
        found: float | None = getattr(figure, statistic)
        return found if is_known(entry, figure) else None

    return shown, value


COLUMNS = (
    Column("rank", "Rank", "By the mean; a range if the runs cannot decide the order at 95 % confidence", rank_text,
           lambda e: e.rank),
    Column("system", "System", "Its name and accelerators", lambda e: e.system, lambda e: e.system),
    Column("nodes", "Nodes", "Nodes", lambda e: str(e.nodes), lambda e: e.nodes),
    Column(
        "accelerators", "Accel.", "Ranks: one per GPU, or processes on processors",
        lambda e: str(e.world_size), lambda e: e.world_size,
    ),
    Column("backend", "Backend", "How ranks communicate", lambda e: e.backend, lambda e: e.backend),
    Column("precision", "Precision", "Compare FLOPS only within one precision", lambda e: e.precision,
           lambda e: e.precision),
    Column("flops", "FLOPS", METRICS["flops"].meaning, *_summary_column("flops", si)),
    Column("quality", "Quality", METRICS["quality"].meaning, *_summary_column("quality", number)),
    Column("vflops", "VFLOPS", METRICS["vflops"].meaning, *_summary_column("vflops", si)),
    Column("interval", "95 % interval", "Interval of the mean VFLOPS, by Student's t", lambda e: interval(e.vflops),
           lambda e: e.vflops.interval_low),
    Column("vflops_per_accelerator", "VFLOPS / accel.", "Mean VFLOPS divided by ranks",
           lambda e: si(e.vflops_per_accelerator), lambda e: e.vflops_per_accelerator),
    Column("vflops_per_watt", "VFLOPS / W", METRICS["vflops_per_watt"].meaning,
           *_summary_column("vflops_per_watt", si)),
    Column("time_to_quality", "Time to quality (s)", METRICS["time_to_quality"].meaning,
           *_summary_column("time_to_quality_sec", number)),
    Column("epochs_to_quality", "Epochs", "Epochs to quality, mean; (4 of 5): only 4 of 5 runs reached the target",
           *_summary_column("epochs_to_quality", number)),
    Column("cv", "CV", "Run-to-run variation: standard deviation over mean of epochs to quality",
           *_summary_column("epochs_to_quality", lambda value: percent(value, 1), "coefficient_of_variation")),
    Column("runs", "Reached", "Runs that reached the target / all runs", reached,
           lambda e: e.epochs_to_quality.num_runs / (len(e.seeds) + e.num_diverged)),
    Column("compliance", "Compliance", "Whether the rules of the level are kept; `hpcai500 check` names each breach",
           compliance, lambda e: e.num_breaches),
)  # fmt: skip


def columns(by: By) -> tuple[Column, ...]:
    """`COLUMNS`, with the interval of the figure that orders the list next to that figure."""
    if by == "vflops":
        return COLUMNS
    own = Column(
        "interval",
        f"95 % interval of {METRICS[by].title}",
        "95 % interval of the mean that the list is ordered by, by Student's t",
        lambda e: interval(figure_of(e, by)),
        lambda e: figure_of(e, by).interval_low if is_known(e, figure_of(e, by)) else None,
    )
    others = [column for column in COLUMNS if column.key != "interval"]
    place = next(position for position, column in enumerate(others, start=1) if column.key == by)
    return (*others[:place], own, *others[place:])


def list_title(ranked: RankedList) -> str:
    by = "" if ranked.by == "vflops" else f", by {METRICS[ranked.by].title}"
    return (
        f"{ranked.title}, {ranked.problem} problem, {ranked.level} level: {ranked.metric}, "
        f"target {ranked.target_quality:g}, n = {ranked.penalty_exponent}{by}"
    )
