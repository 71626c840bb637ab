"""Rankings and repeatability as text: a terminal's table, Markdown, CSV."""

import csv
import io
from collections.abc import Sequence

import tabulate

from hpcai500.score.ranking import Entry, LeftOut, PublishedRankedList, RankedList
from hpcai500.score.statistics import Summary

Row = Sequence[str]

tabulate.MIN_PADDING = 0  # else each heading is widened by two, and a ranking exceeds 100 columns

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(value: float | None) -> str:
    """`value` to four digits with an SI prefix; `-` for None."""
    if value is None:
        return "-"
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}"
    return f"{value:.4g}"


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def percent(value: float | None, decimals: int = 2) -> str:
    return "-" if value is None else f"{value:.{decimals}%}"


HEADINGS = (
    "#", "system", "ranks", "backend", "reached", "quality", "VFLOPS", "FLOPS", "time s", "TTQ s", "epochs", "CV"
)  # fmt: skip
LEGEND = (
    "reached: runs that reached the target, of all; TTQ: mean time to quality; epochs, CV: mean epochs to quality "
    "and their\nstandard deviation over the mean; the other columns are means over the runs."
)


def entry_row(entry: Entry) -> Row:
    return (
        str(entry.rank),
        entry.system,
        str(entry.world_size),
        f"{entry.backend} {entry.precision}",
        f"{entry.epochs_to_quality.num_runs}/{len(entry.seeds)}",
        number(entry.quality.mean),
        si(entry.vflops.mean),
        si(entry.flops.mean),
        number(entry.time_sec.mean),
        number(entry.time_to_quality_sec.mean),
        number(entry.epochs_to_quality.mean),
        percent(entry.epochs_to_quality.coefficient_of_variation, 1),
    )


PUBLISHED_HEADINGS = (
    "#", "source", "accelerators", "framework", "minutes", "quality", "VFLOPS", "published", "ours/published"
)  # fmt: skip


def list_title(ranked: RankedList) -> str:
    return (
        f"{ranked.title}, {ranked.problem} problem, {ranked.level} level: {ranked.metric}, "
        f"target {ranked.target_quality:g}, n = {ranked.penalty_exponent}"
    )


def published_title(ranked: PublishedRankedList) -> str:
    return (
        f"{ranked.title}; {ranked.problem} problem, {ranked.level} level, target {ranked.target_quality:g}, "
        f"n = {ranked.penalty_exponent}"
    )


def as_sections(
    lists: Sequence[RankedList], published: Sequence[PublishedRankedList]
) -> list[tuple[str, Row, list[Row], list[str]]]:
    """Title, headings, rows and notes of each list."""
    sections: list[tuple[str, Row, list[Row], list[str]]] = []
    for ranked in lists:
        notes = [
            f"{entry.rank}: {entry.world_size} ranks on {entry.accelerator}"
            + (f"; {', '.join(entry.overrides)}" if entry.overrides else "")
            for entry in ranked.entries
        ]
        sections.append((list_title(ranked), HEADINGS, [entry_row(e) for e in ranked.entries], notes))
    for listed in published:
        rows: list[Row] = [
            (
                str(entry.rank),
                f"{entry.source} ({entry.published_rank})",
                f"{entry.accelerator_count} {entry.accelerator}",
                entry.framework,
                f"{entry.time_sec / 60:g}",
                f"{entry.achieved_quality:.3f}",
                si(entry.vflops),
                si(entry.published_vflops),
                f"{entry.ratio:.3f}",
            )
            for entry in listed.entries
        ]
        notes = [f"VFLOPS recomputed from minutes and quality: {listed.convention}."]
        notes += [listed.note] if listed.note else []
        sections.append((published_title(listed), PUBLISHED_HEADINGS, rows, notes))
    return sections


def ranking_text(
    lists: Sequence[RankedList],
    published: Sequence[PublishedRankedList],
    left_out: Sequence[LeftOut],
    *,
    markdown: bool = False,
) -> str:
    parts = []
    for title, headings, rows, notes in as_sections(lists, published):
        table = _table(headings, rows, markdown)
        parts.append("\n".join([f"## {title}\n" if markdown else title, table, *(f"  {note}" for note in notes)]))
    if lists:
        parts.append(LEGEND)
    if left_out:
        lines = [f"  {path}: {reason}" for path, reason in left_out]
        parts.append("\n".join([f"Not ranked ({len(left_out)}):", *lines]))
    return "\n\n".join(parts) or "Nothing to rank."


def ranking_csv(lists: Sequence[RankedList], published: Sequence[PublishedRankedList]) -> str:
    """Every list in one table; numbers in base units, without prefixes."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow((
        "list", "workload", "problem", "level", "penalty_exponent", "rank", "system", "ranks", "backend", "precision",
        "runs", "quality", "vflops", "flops", "time_sec", "time_to_quality_sec", "epochs_to_quality",
        "epochs_to_quality_cv", "published_vflops",
    ))  # fmt: skip
    for ranked in lists:
        for e in ranked.entries:
            writer.writerow((
                "measured", ranked.workload, ranked.problem, ranked.level, ranked.penalty_exponent, e.rank, e.system,
                e.world_size, e.backend, e.precision, len(e.seeds), e.quality.mean, e.vflops.mean, e.flops.mean,
                e.time_sec.mean, e.time_to_quality_sec.mean, e.epochs_to_quality.mean,
                e.epochs_to_quality.coefficient_of_variation, None,
            ))  # fmt: skip
    for listed in published:
        for p in listed.entries:
            writer.writerow((
                "published", listed.workload, listed.problem, listed.level, listed.penalty_exponent, p.rank, p.source,
                p.accelerator_count, p.framework, None, 1, p.achieved_quality, p.vflops, p.flops, p.time_sec, None,
                None, None, p.published_vflops,
            ))  # fmt: skip
    return output.getvalue().rstrip("\n")


def repeatability_text(lists: Sequence[RankedList]) -> str:
    """For each entry: mean, spread and 95 % interval of what varies between seeds."""
    parts = []
    for ranked in lists:
        for entry in ranked.entries:
            seeds = ", ".join(str(seed) for seed in entry.seeds)
            title = (
                f"{ranked.title}, {ranked.problem} problem, {ranked.level} level: {entry.system}, "
                f"{entry.world_size} ranks, {entry.backend}, {entry.precision}; seeds {seeds}"
            )
            rows = [
                _summary_row("epochs to quality", entry.epochs_to_quality),
                _summary_row("final quality", entry.quality),
                _summary_row("VFLOPS", entry.vflops),
                _summary_row("time to quality (s)", entry.time_to_quality_sec),
            ]
            headings = ("figure", "runs", "never", "mean", "std dev", "CV", "95 % interval of the mean")
            parts.append(f"{title}\n{_table(headings, rows, markdown=False)}")
    return "\n\n".join(parts) or "No ranked runs."


def _summary_row(name: str, summary: Summary) -> Row:
    interval = "needs two runs"
    if summary.interval_low is not None:
        interval = f"{si(summary.interval_low)} to {si(summary.interval_high)}"
    return (
        name,
        str(summary.num_runs),
        str(summary.num_censored),
        si(summary.mean),
        si(summary.standard_deviation),
        percent(summary.coefficient_of_variation),
        interval,
    )


def _table(headings: Row, rows: Sequence[Row], markdown: bool) -> str:
    return tabulate.tabulate(rows, headings, tablefmt="pipe" if markdown else "simple", disable_numparse=True)
