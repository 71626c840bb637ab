"""The state of runs as a table, and as records for machines."""

from collections.abc import Iterable
from typing import Any

from tabulate import tabulate

from hpcai500.runs.state import RunState


def status_table(rows: Iterable[RunState]) -> str:
    """One line per run; below the table, why each unfinished run is not done."""
    cells, notes = [], []
    for row in rows:
        spec = row.spec
        cells.append(
            [
                spec.workload.name,
                f"{spec.problem}-{spec.level}",
                f"{spec.backend} {spec.nodes}x{spec.procs_per_node}",
                spec.seed,
                row.state.value,
                f"{row.epochs_done}/{spec.settings.problem.num_epochs}",
                "" if row.quality is None else f"{row.quality:.4f}",
                "" if row.left_sec is None else _duration(row.left_sec),
                len(row.result.interruptions) or "",
                row.job_id,
            ]
        )
        if row.detail:
            notes.append(f"  seed {spec.seed} ({row.job_id or spec.run_id}): {row.detail}")
    headers = ["workload", "problem", "ranks", "seed", "state", "epoch", "quality", "left", "stops", "job"]
    return "\n".join([tabulate(cells, headers, disable_numparse=True), *notes])


def _duration(seconds: float) -> str:
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def status_record(row: RunState) -> dict[str, Any]:
    """One run's state as `hpcai500 status --json` prints it."""
    return {
        "folder": str(row.folder),
        "seed": row.spec.seed,
        "state": row.state.value,
        "detail": row.detail,
        "job_id": row.job_id or None,
        "epochs_done": row.epochs_done,
        "num_epochs": row.spec.settings.problem.num_epochs,
        "quality": row.quality,
        "left_sec": row.left_sec,
        "interruptions": len(row.result.interruptions),
    }
