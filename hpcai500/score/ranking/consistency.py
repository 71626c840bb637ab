"""Whether the figures of a ranking follow from those of its runs, computed again by the code that made them."""

import math
from collections.abc import Iterator

from hpcai500.score.ranking.entries import Entry, RankedList, RunFigures
from hpcai500.score.ranking.figures import placed, summaries
from hpcai500.score.ranking.published import PublishedEntry, PublishedRankedList
from hpcai500.score.ranking.scaling import ScalingSeries, Sensitivity, sensitivity
from hpcai500.score.ranking.statistics import Summary
from hpcai500.score.record.valid_flops import valid_flops

_EQUAL = 1e-9
"""Relative difference that rounding may make between a figure and the same one computed again."""
_CLOSE = 1e-6
"""Relative difference that a result may have between figures of its own."""


def run_faults(run: RunFigures, ranked: RankedList) -> Iterator[str]:
    """Figures of a run that do not follow from its others."""
    expected = valid_flops(run.flops, run.achieved_quality, ranked.target_quality, ranked.penalty_exponent)
    if not math.isclose(run.vflops, expected, rel_tol=_CLOSE):
        yield f"vflops: {run.vflops:g} is not flops * (achieved_quality / target_quality) ** n, which is {expected:g}"
    if run.vflops_per_watt is not None and not run.energy_joules:
        yield "vflops_per_watt: given without energy_joules"
    if run.vflops_per_watt and run.energy_joules:
        per_watt = run.vflops * run.total_sec / run.energy_joules
        if not math.isclose(run.vflops_per_watt, per_watt, rel_tol=2 * _CLOSE):
            yield f"vflops_per_watt: {run.vflops_per_watt:g} is not vflops over power, which is {per_watt:g}"
    if (run.time_to_quality_sec is None) != (run.epochs_to_quality is None):
        yield "time_to_quality_sec and epochs_to_quality must be given together"
    if run.time_to_quality_sec is not None and run.time_to_quality_sec > run.total_sec * (1 + _CLOSE):
        yield "time_to_quality_sec: more than total_sec"
    if run.curve and run.curve.quality and not _agree(run.curve.quality[-1], run.achieved_quality, _CLOSE):
        yield "curve.quality: does not end at achieved_quality"


def entry_faults(entry: Entry) -> Iterator[str]:
    """Figures of an entry that do not follow from its runs."""
    for name, expected in summaries(entry.runs, entry.num_diverged, entry.world_size).items():
        given = getattr(entry, name)
        if isinstance(expected, Summary):
            # The median of censored epochs needs each run's budget of epochs, which no ranking holds.
            skipped = "median" if name == "epochs_to_quality" and expected.num_censored else ""
            yield from (f"{name}.{fault}" for fault in _summary_faults(given, expected, skipped))
        elif not _agree(given, expected, _EQUAL):
            yield f"{name}: {_differs(given, expected)}"


def _summary_faults(given: Summary, expected: Summary, skipped: str) -> Iterator[str]:
    size = abs(expected.mean or 0.0)
    for name, value in vars(expected).items():
        stated = getattr(given, name)
        around = 1.0 if name == "coefficient_of_variation" else size
        if name != skipped and not _agree(stated, value, _EQUAL, around):
            yield f"{name}: {_differs(stated, value)}"


def _agree(given: float | None, expected: float | None, close: float, around: float = 0.0) -> bool:
    """Whether two figures are equal but for rounding, relative to themselves or to what they lie around."""
    if given is None or expected is None:
        return given is expected
    if isinstance(expected, int):
        return given == expected
    return math.isclose(given, expected, rel_tol=close, abs_tol=close * around)


def _differs(given: float | None, expected: float | None) -> str:
    return f"{_shown(given)} does not follow from the runs, which give {_shown(expected)}"


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:.12g}"


def place_faults(ranked: RankedList) -> Iterator[str]:
    """Ranks, and an order, that do not follow from the entries' runs."""
    blank = {"rank": None, "rank_low": None, "rank_high": None}
    entries = [
        entry.model_copy(update={**blank, **summaries(entry.runs, entry.num_diverged, entry.world_size)})
        for entry in ranked.entries
    ]
    for number, (given, expected) in enumerate(zip(ranked.entries, placed(entries, ranked.by), strict=True)):
        if given.runs is not expected.runs:
            yield f"entries.{number}: not in the order by {ranked.by}"
        for name in blank:
            if getattr(given, name) != getattr(expected, name):
                yield f"entries.{number}: {name}: {_differs(getattr(given, name), getattr(expected, name))}"
    points = [[(run.flops, run.achieved_quality) for run in entry.runs] for entry in ranked.entries]
    yield from _sensitivity_faults(ranked.sensitivity, points, ranked.target_quality)


def _sensitivity_faults(
    given: Sensitivity | None, points: list[list[tuple[float, float]]], target_quality: float
) -> Iterator[str]:
    if given and given.ranks != sensitivity(points, target_quality, given.exponents).ranks:
        yield "sensitivity.ranks: not those of the runs' VFLOPS"


def series_faults(series: ScalingSeries, ranked: RankedList) -> Iterator[str]:
    """Points that are no entries of the list, and speed-ups that do not follow from them."""
    first = series.points[0]
    for number, point in enumerate(series.points):
        same = (
            entry.flops.mean
            for entry in ranked.entries
            if (entry.experiment_digest, entry.world_size, entry.nodes)
            == (point.experiment_digest, point.world_size, point.nodes)
        )
        if not any(_agree(point.flops, mean, _EQUAL) for mean in same):
            yield f"points.{number}: flops: not those of an entry with its experiment_digest, world_size and nodes"
        elif not first.flops or not _agree(point.speed_up, point.flops / first.flops, _EQUAL):
            yield f"points.{number}: speed_up: not flops over those of the first point"
        elif not _agree(point.efficiency, point.speed_up * first.world_size / point.world_size, _EQUAL):
            yield f"points.{number}: efficiency: not speed_up over the growth in ranks"


def published_faults(listed: PublishedRankedList) -> Iterator[str]:
    """Figures of a published list that do not follow from its rows' FLOPS and qualities."""
    for number, entry in enumerate(listed.entries):
        expected = valid_flops(entry.flops, entry.achieved_quality, listed.target_quality, listed.penalty_exponent)
        if not _agree(entry.vflops, expected, _CLOSE):
            yield f"entries.{number}: vflops: not flops * (achieved_quality / target_quality) ** n"
        if not _agree(_work(entry), _work(listed.entries[0]), _CLOSE):
            yield f"entries.{number}: flops: flops * time_sec is not that of the first row"
        if entry.rank != number + 1 or entry.vflops > listed.entries[max(0, number - 1)].vflops:
            yield f"entries.{number}: rank: not that of the order by vflops"
    points = [[(entry.flops, entry.achieved_quality)] for entry in listed.entries]
    yield from _sensitivity_faults(listed.sensitivity, points, listed.target_quality)


def _work(entry: PublishedEntry) -> float:
    return entry.flops * entry.time_sec
