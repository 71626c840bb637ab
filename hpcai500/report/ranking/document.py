"""A ranking for machines: JSON of a published schema, and CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Literal

from hpcai500 import __version__
from hpcai500.report.ranking.columns import Value, compliance
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.ranking import Entry, RankedList, figure_of
from hpcai500.score.record.reading import LeftOut
from hpcai500.spec.models import Frozen


class NotRanked(Frozen):
    path: str
    reason: str


class RankingDocument(Frozen):
    """What `hpcai500 rank --format json` prints; docs/schemas/ranking.schema.json is its schema."""

    schema_version: Literal[1] = 1
    hpcai500_version: str = __version__
    lists: tuple[RankedList, ...]
    published: tuple[PublishedRankedList, ...]
    not_ranked: tuple[NotRanked, ...]


def ranking_document(
    lists: Sequence[RankedList], published: Sequence[PublishedRankedList], left_out: Sequence[LeftOut]
) -> RankingDocument:
    return RankingDocument(
        lists=tuple(lists),
        published=tuple(published),
        not_ranked=tuple(NotRanked(path=item.path, reason=item.reason) for item in left_out),
    )


CSV_COLUMNS = (
    "list", "workload", "problem", "level", "by", "rank", "rank_low", "rank_high", "system", "nodes", "accelerators",
    "accelerator", "backend", "precision", "settings", "flops", "achieved_quality", "target_quality",
    "penalty_exponent", "vflops", "vflops_low", "vflops_high", "vflops_per_accelerator", "vflops_per_watt",
    "time_sec", "time_to_quality_sec", "epochs_to_quality", "epochs_to_quality_cv", "runs", "runs_reached",
    "runs_with_energy", "by_low", "by_high", "breaches", "published_rank", "published_vflops", "note",
)  # fmt: skip


def ranking_csv(
    lists: Sequence[RankedList], published: Sequence[PublishedRankedList], left_out: Sequence[LeftOut]
) -> str:
    """Every list in one table, and what is not ranked at its end; base units, empty where there is no figure."""
    output = io.StringIO()
    writer = csv.DictWriter(output, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    rows = [_entry_row(ranked, entry) for ranked in lists for entry in ranked.entries]
    rows += [row for listed in published for row in _published_rows(listed)]
    rows += [{"list": "not ranked", "system": item.path, "note": item.reason} for item in left_out]
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return output.getvalue().rstrip("\n")


def _cell(value: Value) -> Value:
    """A text that a spreadsheet would take for a formula is made plain by an apostrophe (OWASP, CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _entry_row(ranked: RankedList, entry: Entry) -> dict[str, Value]:
    return {
        "list": "measured",
        "workload": ranked.workload,
        "problem": ranked.problem,
        "level": ranked.level,
        "by": ranked.by,
        "rank": entry.rank,
        "rank_low": entry.rank_low,
        "rank_high": entry.rank_high,
        "system": entry.system,
        "nodes": entry.nodes,
        "accelerators": entry.world_size,
        "accelerator": entry.accelerator,
        "backend": entry.backend,
        "precision": entry.precision,
        "settings": " ".join(entry.overrides),
        "flops": entry.flops.mean,
        "achieved_quality": entry.quality.mean,
        "target_quality": ranked.target_quality,
        "penalty_exponent": ranked.penalty_exponent,
        "vflops": entry.vflops.mean,
        "vflops_low": entry.vflops.interval_low,
        "vflops_high": entry.vflops.interval_high,
        "vflops_per_accelerator": entry.vflops_per_accelerator,
        "vflops_per_watt": entry.vflops_per_watt.mean,
        "time_sec": entry.time_sec.mean,
        "time_to_quality_sec": entry.time_to_quality_sec.mean,
        "epochs_to_quality": entry.epochs_to_quality.mean,
        "epochs_to_quality_cv": entry.epochs_to_quality.coefficient_of_variation,
        "runs": len(entry.seeds) + entry.num_diverged,
        "runs_reached": entry.epochs_to_quality.num_runs,
        "runs_with_energy": entry.energy_joules.num_runs,
        "by_low": figure_of(entry, ranked.by).interval_low,
        "by_high": figure_of(entry, ranked.by).interval_high,
        "breaches": entry.num_breaches,
        "note": compliance(entry) if entry.unverified else entry.not_placed,
    }


def _published_rows(listed: PublishedRankedList) -> list[dict[str, Value]]:
    return [
        {
            "list": listed.status,
            "workload": listed.workload,
            "problem": listed.problem,
            "level": listed.level,
            "by": "vflops",
            "rank": entry.rank,
            "system": entry.source,
            "accelerators": entry.accelerator_count,
            "accelerator": entry.accelerator,
            "backend": entry.framework,
            "flops": entry.flops,
            "achieved_quality": entry.achieved_quality,
            "target_quality": listed.target_quality,
            "penalty_exponent": listed.penalty_exponent,
            "vflops": entry.vflops,
            "vflops_per_accelerator": entry.vflops / entry.accelerator_count,
            "time_sec": entry.time_sec,
            "published_rank": entry.published_rank,
            "published_vflops": entry.published_vflops,
            "note": listed.note if entry.is_suspect else "",
        }
        for entry in listed.entries
    ]
