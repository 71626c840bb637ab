"""How much runs of one experiment differ: spread, outliers, repeated seeds, and whether a set is plausible."""

import statistics
from collections.abc import Iterable, Sequence

from hpcai500.errors import InputError
from hpcai500.score.ranking.collection import Collected, Run
from hpcai500.score.ranking.entries import Entry, RankedList, RunFigures, known_of
from hpcai500.score.ranking.ranking import rank
from hpcai500.score.ranking.statistics import Summary, outliers, p_not_faster, runs_needed, summarize
from hpcai500.score.record.reading import newest_result
from hpcai500.score.record.result import Result
from hpcai500.score.record.source import SourceName
from hpcai500.spec.models import Frozen

SIGNIFICANCE = 0.05

_SHARED = ("system", "accelerator", "experiment_digest", "world_size", "nodes", "backend", "precision")

_WATCHED = (("time", "total_sec"), ("FLOPS", "flops"), ("final quality", "achieved_quality"))


class Figure(Frozen):
    name: str
    num_all: int
    """Runs of the entry; `summary` covers those that have the figure."""
    summary: Summary
    runs_needed: int | None
    """For a 95 % interval within 5 % of the mean, counting those that there are; null if the spread is unknown."""


class OutlyingRun(Frozen):
    seed: int
    figure: str
    value: float
    score: float
    """Modified z-score, as `statistics.outliers` computes it."""
    reason: str


class SeedPair(Frozen):
    """Two runs of one experiment with one seed."""

    seed: int
    first: SourceName
    second: SourceName
    first_difference: int | None
    """The first epoch whose loss or quality differs; null if all are bit-identical."""
    largest_difference: float
    """Largest relative difference of training losses."""


class Comparison(Frozen):
    """Test of epochs to quality against a reference set of the same problem."""

    num_reference_runs: int
    p_value: float
    """Probability of a set this fast if it converges no faster than the reference."""
    is_plausible: bool
    """False if it converges faster than the reference, at 5 %."""


class Repeatability(Frozen):
    workload: str
    title: str
    problem: str
    level: str
    entry: Entry
    figures: tuple[Figure, ...]
    outliers: tuple[OutlyingRun, ...]
    same_seed: tuple[SeedPair, ...]
    reference: Comparison | None = None


def repeatability(collected: Collected, reference: Collected | None = None) -> list[Repeatability]:
    """One report per entry; with `reference`, each is compared with the reference runs of its problem and target."""
    lists = rank(collected.runs, diverged=collected.diverged)
    references = rank(reference.runs, diverged=reference.diverged) if reference else []
    return [
        _report(ranked, entry, collected, references)
        for ranked in lists
        for entry in ranked.entries
    ]  # fmt: skip


def _report(
    ranked: RankedList, entry: Entry, collected: Collected, references: Sequence[RankedList]
) -> Repeatability:
    return Repeatability(
        workload=ranked.workload,
        title=ranked.title,
        problem=ranked.problem,
        level=ranked.level,
        entry=entry,
        figures=_every_figure(entry),
        outliers=tuple(_outlying(entry.runs)),
        same_seed=tuple(_pairs(ranked, entry, collected.repeated)),
        reference=_compare(ranked, entry, references),
    )


def _every_figure(entry: Entry) -> tuple[Figure, ...]:
    runs = entry.runs
    lost: list[None] = [None] * entry.num_diverged
    columns: list[tuple[str, Summary, Sequence[float | None]]] = [
        ("epochs to quality", entry.epochs_to_quality, [*(run.epochs_to_quality for run in runs), *lost]),
        ("time to quality (s)", entry.time_to_quality_sec, [*(run.time_to_quality_sec for run in runs), *lost]),
        ("final quality", entry.quality, [run.achieved_quality for run in runs]),
        ("VFLOPS", entry.vflops, [run.vflops for run in runs]),
        ("FLOPS", entry.flops, [run.flops for run in runs]),
        ("time (s)", entry.time_sec, [run.total_sec for run in runs]),
    ]
    if entry.energy_joules.num_runs:
        columns.append(("energy (J)", entry.energy_joules, [run.energy_joules for run in runs]))
    return tuple(_figure(entry, *column) for column in columns)


def _figure(entry: Entry, name: str, summary: Summary, values: Sequence[float | None]) -> Figure:
    resampled = summarize(values, bootstrap=True)
    variation = summary.coefficient_of_variation
    return Figure(
        name=name,
        num_all=known_of(entry, summary)[1],
        summary=summary.model_copy(
            update={"bootstrap_low": resampled.bootstrap_low, "bootstrap_high": resampled.bootstrap_high}
        ),
        runs_needed=None if variation is None else runs_needed(variation),
    )


def _outlying(runs: Sequence[RunFigures]) -> Iterable[OutlyingRun]:
    for name, field in _WATCHED:
        values = [float(getattr(run, field)) for run in runs]
        for found in outliers(values):
            run = runs[found.position]
            yield OutlyingRun(
                seed=run.seed, figure=name, value=values[found.position], score=found.score,
                reason=_reason(name, run, runs),
            )  # fmt: skip


def _reason(figure: str, run: RunFigures, runs: Sequence[RunFigures]) -> str:
    """What else is unusual about `run`: an interruption, or the part of its time that differs most."""
    if figure == "final quality":
        return "it reached the target" if run.epochs_to_quality else "it never reached the target"
    if run.num_interruptions:
        return f"{run.num_interruptions} interruptions cost {run.interrupted_sec:.4g} s"

    def excess(field: str) -> float:
        others = [float(getattr(other, field)) for other in runs if other is not run]
        return float(getattr(run, field)) - statistics.median(others)

    field, name = max((("train_sec", "training"), ("eval_sec", "evaluation")), key=lambda part: abs(excess(part[0])))
    seconds = excess(field)
    return f"{name} took {abs(seconds):.4g} s {'more' if seconds > 0 else 'less'} than the other runs' median"


def _pairs(ranked: RankedList, entry: Entry, repeated: Sequence[tuple[Run, Run]]) -> Iterable[SeedPair]:
    for first, second in repeated:
        identity = first.result.identity
        if (identity.problem, identity.level) != (ranked.problem, ranked.level):
            continue
        if any(getattr(identity, name) != getattr(entry, name) for name in _SHARED):
            continue
        try:
            results = newest_result(first.files), newest_result(second.files)
        except (InputError, OSError):  # gone since it was collected
            continue
        epoch, largest = _difference(*results)
        yield SeedPair(
            seed=identity.seed, first=first.files.source, second=second.files.source,
            first_difference=epoch, largest_difference=largest,
        )  # fmt: skip


def _difference(first: Result, second: Result) -> tuple[int | None, float]:
    """The first epoch that differs, and the largest relative difference of losses."""
    differing = [
        a.epoch_num
        for a, b in zip(first.epochs, second.epochs, strict=False)
        if (a.train_loss, a.quality) != (b.train_loss, b.quality)
    ]
    if not differing and len(first.epochs) != len(second.epochs):
        differing = [min(len(first.epochs), len(second.epochs)) + 1]
    relative = [
        abs(a.train_loss - b.train_loss) / (max(abs(a.train_loss), abs(b.train_loss)) or 1.0)
        for a, b in zip(first.epochs, second.epochs, strict=False)
    ]
    return (differing[0] if differing else None), max(relative, default=0.0)


def _compare(ranked: RankedList, entry: Entry, references: Sequence[RankedList]) -> Comparison | None:
    epochs = [
        value
        for other in references
        if (other.workload, other.problem, other.target_quality)
        == (ranked.workload, ranked.problem, ranked.target_quality)
        for reference in other.entries
        for value in _epochs(reference)
    ]
    p = p_not_faster(_epochs(entry), epochs)
    if p is None:
        return None
    return Comparison(num_reference_runs=len(epochs), p_value=p, is_plausible=p >= SIGNIFICANCE)


def _epochs(entry: Entry) -> list[float | None]:
    return [*(run.epochs_to_quality for run in entry.runs), *([None] * entry.num_diverged)]
