"""`hpcai500 status`: where each run of a results directory stands."""

import argparse
import sys
import time
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.errors import InputError
from hpcai500.runs.state import Progress, State, progress_table, run_folders, survey

_CLEAR = "\033[H\033[2J"


def main(args: argparse.Namespace) -> int:
    """0 while nothing failed; 1 if a run did."""
    rows, unreadable = look(args)
    while args.watch and any(row.state.is_under_way for row in rows):
        show(args, rows, unreadable, clear=sys.stdout.isatty())
        time.sleep(args.watch)
        rows, unreadable = look(args)
    show(args, rows, unreadable, clear=bool(args.watch) and sys.stdout.isatty())
    return 1 if unreadable or any(row.state is State.FAILED for row in rows) else 0


def look(args: argparse.Namespace) -> tuple[list[Progress], dict[Path, str]]:
    """The runs, and those that cannot be read with the reason."""
    paths = [Path(path) for path in args.paths]
    for path in paths:
        if not path.exists():
            raise InputError(
                f"{path}: no such folder", "`hpcai500 run` or `submit` first, or name another results directory"
            )
    unreadable: dict[Path, str] = {}
    return survey(run_folders(paths), unreadable), unreadable


def show(args: argparse.Namespace, rows: list[Progress], unreadable: dict[Path, str], *, clear: bool) -> None:
    if args.json:
        broken = [{"folder": str(f), "state": "unreadable", "detail": why} for f, why in unreadable.items()]
        print_json([*(record(row) for row in rows), *broken])
        return
    lines = [progress_table(rows) if rows else "no runs", *(f"unreadable: {why}" for why in unreadable.values())]
    print((_CLEAR if clear else "") + "\n".join(lines), flush=True)


def record(row: Progress) -> dict[str, object]:
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
