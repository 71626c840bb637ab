"""What follows from the figures of an entry's runs: its summaries, and its place in a list."""

from collections.abc import Sequence
from typing import Any

from hpcai500.score.ranking.entries import Entry, RunFigures, figure_of, is_known
from hpcai500.score.ranking.metrics import METRICS, By
from hpcai500.score.ranking.rank_ranges import undecided_ranks
from hpcai500.score.ranking.statistics import Summary, mlperf_score, summarize


def summaries(
    figures: Sequence[RunFigures], num_diverged: int, world_size: int, num_epochs: Sequence[float] | None = None
) -> dict[str, Any]:
    """The fields of an entry that follow from its runs, by name.

    `num_epochs[i]` is how long run i, or diverged run i - len(figures), could take to reach the target.
    """
    lost: list[None] = [None] * num_diverged
    limits = [f.total_sec for f in figures] + [max(f.total_sec for f in figures)] * num_diverged
    to_quality = [*(f.time_to_quality_sec for f in figures), *lost]
    vflops = summarize([f.vflops for f in figures])
    return {
        "quality": summarize([f.achieved_quality for f in figures]),
        "flops": summarize([f.flops for f in figures]),
        "vflops": vflops,
        "vflops_per_accelerator": (vflops.mean or 0.0) / world_size,
        "vflops_per_watt": summarize([f.vflops_per_watt for f in figures if f.vflops_per_watt is not None]),
        "time_sec": summarize([f.total_sec for f in figures]),
        "time_to_quality_sec": summarize(to_quality, limits),
        "epochs_to_quality": summarize([*(f.epochs_to_quality for f in figures), *lost], num_epochs),
        "energy_joules": summarize([f.energy_joules for f in figures if f.energy_joules is not None]),
        "mlperf_time_sec": mlperf_score(to_quality),
    }


def placed(entries: Sequence[Entry], by: By) -> list[Entry]:
    """In order, with ranks; those without the figure last, with the reason."""
    metric = METRICS[by]
    sign = -1 if metric.is_better_when_larger else 1

    def figure(entry: Entry) -> Summary:
        return figure_of(entry, by)

    known = [entry for entry in entries if is_known(entry, figure(entry))]
    known.sort(key=lambda entry: (sign * (figure(entry).mean or 0), entry.system, entry.experiment_digest))
    unknown = [entry for entry in entries if not is_known(entry, figure(entry))]
    unknown.sort(key=lambda entry: (-(entry.vflops.mean or 0), entry.system, entry.experiment_digest))
    first_with: dict[float, int] = {}
    for position, entry in enumerate(known, start=1):
        first_with.setdefault(figure(entry).mean or 0, position)
    ranges = undecided_ranks([figure(entry) for entry in known])
    ranked = [
        entry.model_copy(update={"rank": first_with[figure(entry).mean or 0], "rank_low": low, "rank_high": high})
        for entry, (low, high) in zip(known, ranges, strict=True)
    ]
    return ranked + [entry.model_copy(update={"not_placed": metric.missing}) for entry in unknown]
