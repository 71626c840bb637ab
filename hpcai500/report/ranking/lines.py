"""Lines that the text formats of a ranking share."""

from collections.abc import Sequence

from hpcai500.report.ranking.columns import number
from hpcai500.score.ranking.document import RankingDocument
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.scaling import ScalingSeries
from hpcai500.text import counted, si

Row = Sequence[str]

PUBLISHED_HEADINGS = (
    "#", "source", "accelerators", "framework", "minutes", "quality", "VFLOPS", "published", "ours/published"
)  # fmt: skip


def origin_line(document: RankingDocument) -> str:
    """Where a ranking comes from that was not made from results; else nothing."""
    if document.ranking_file_sha256 is None:
        return ""
    return f"Made from a ranking file of SHA-256 {document.ranking_file_sha256}; the runs' evidence was not read."


def published_row(listed: PublishedRankedList, position: int) -> Row:
    entry = listed.entries[position]
    return (
        str(entry.rank),
        f"{entry.source} ({entry.published_rank})" + (" *" if entry.is_suspect else ""),
        f"{entry.accelerator_count} {entry.accelerator}",
        entry.framework,
        f"{entry.time_sec / 60:g}",
        f"{entry.achieved_quality:.3f}",
        si(entry.vflops),
        si(entry.published_vflops),
        f"{entry.ratio:.3f}",
    )


def published_title(ranked: PublishedRankedList) -> str:
    return (
        f"{ranked.title}; {ranked.problem} problem, {ranked.level} level, target {ranked.target_quality:g}, "
        f"n = {ranked.penalty_exponent}"
    )


def published_notes(listed: PublishedRankedList) -> list[str]:
    notes = [f"{listed.status.capitalize()}. VFLOPS recomputed from minutes and quality: {listed.convention}."]
    return notes + ([f"* {listed.note}"] if listed.note else [])


def scaling_line(series: ScalingSeries) -> str:
    batch = {
        "strong": f"global batch {series.batch_size}", "weak": f"{number(series.batch_size)} samples per rank",
        "unknown": "batch unknown",
    }[series.kind]  # fmt: skip
    has_twins = len({point.world_size for point in series.points}) < len(series.points)
    points = ", ".join(
        counted(point.world_size, "rank")
        + (f" on {counted(point.nodes, 'node')}" if has_twins else "")
        + f" {point.speed_up:.2f}x ({point.efficiency:.0%})"
        for point in series.points
    )
    settings = ", ".join((series.backend, series.precision, batch, *series.settings))
    return f"{series.kind} scaling of {series.system} ({settings}): {points}"
