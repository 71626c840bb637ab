"""`hpcai500 status`: the state of each run of a results directory."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_runs
from hpcai500.cli.output import print_json
from hpcai500.errors import InputError

if TYPE_CHECKING:
    from hpcai500.runs.state import RunState

_CLEAR = "\033[H\033[2J"


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "status", main, "what is queued, running, done, failed, and why")
    add_runs(parser)
    parser.add_argument(
        "--watch", type=float, nargs="?", const=10.0, metavar="SEC",
        help="look again every SEC seconds (10 if not given) until nothing is queued or running",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """0 while nothing failed; 1 if a run did."""
    from hpcai500.runs.state import State

    rows, unreadable = _look(args.paths)
    while args.watch and any(row.state.is_under_way for row in rows):
        _show(args, rows, unreadable, clear=sys.stdout.isatty())
        time.sleep(args.watch)
        rows, unreadable = _look(args.paths)
    _show(args, rows, unreadable, clear=bool(args.watch) and sys.stdout.isatty())
    return 1 if unreadable or any(row.state is State.FAILED for row in rows) else 0


def _look(names: list[str]) -> tuple[list[RunState], dict[Path, str]]:
    """The runs, and those that cannot be read with the reason."""
    from hpcai500.runs.state import runs_below, survey

    paths = [Path(name) for name in names]
    for path in paths:
        if not path.exists():
            hint = "`hpcai500 run` or `submit` first, or name another results directory"
            raise InputError(f"{path}: no such folder", hint)
    unreadable: dict[Path, str] = {}
    return survey(runs_below(paths), unreadable), unreadable


def _show(args: argparse.Namespace, rows: list[RunState], unreadable: dict[Path, str], *, clear: bool) -> None:
    from hpcai500.report.status import status_record, status_table

    if args.json:
        broken = [{"folder": str(f), "state": "unreadable", "detail": why} for f, why in unreadable.items()]
        print_json([*(status_record(row) for row in rows), *broken])
        return
    lines = [status_table(rows) if rows else "no runs", *(f"unreadable: {why}" for why in unreadable.values())]
    print((_CLEAR if clear else "") + "\n".join(lines), flush=True)
