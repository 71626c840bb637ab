"""A ranking as CSV."""

import csv
import io

from hpcai500.report.ranking.columns import Value, compliance
from hpcai500.score.ranking.document import RankingDocument
from hpcai500.score.ranking.entries import Entry, RankedList, figure_of
from hpcai500.score.ranking.published import PublishedRankedList

CSV_COLUMNS = (
    "list", "workload", "problem", "level", "by", "rank", "rank_low", "rank_high", "system", "nodes", "accelerators",
    "accelerator", "backend", "precision", "settings", "flops", "achieved_quality", "target_quality",
    "penalty_exponent", "vflops", "vflops_low", "vflops_high", "vflops_per_accelerator", "vflops_per_watt",
    "time_sec", "time_to_quality_sec", "epochs_to_quality", "epochs_to_quality_cv", "runs", "runs_reached",
    "runs_with_energy", "by_low", "by_high", "breaches", "published_rank", "published_vflops", "note",
)  # fmt: skip


def render(document: RankingDocument, *, is_narrow: bool = False) -> str:
    """Every list in one table, and what is not ranked at its end; base units, empty if there is no figure."""
    output = io.StringIO()
    writer = csv.DictWriter(output, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    rows = [_entry_row(ranked, entry) for ranked in document.lists for entry in ranked.entries]
    rows += [row for listed in document.published for row in _published_rows(listed)]
    rows += [{"list": "not ranked", "system": str(item.path), "note": item.reason} for item in document.not_ranked]
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return output.getvalue().rstrip("\n")


def _cell(value: Value) -> Value:
    """`value`, behind an apostrophe if a spreadsheet would take it for a formula (OWASP, CSV injection)."""
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
