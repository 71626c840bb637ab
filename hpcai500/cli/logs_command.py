"""`hpcai500 logs`: what a run's ranks printed."""

import argparse
from pathlib import Path

from hpcai500.cli.options import Commands, add_command, add_runs
from hpcai500.cli.output import print_json
from hpcai500.errors import InputError

_FILES = ("stdout.log", "stderr.log")


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "logs", main, "what the ranks of runs printed")
    add_runs(parser)
    parser.add_argument(
        "--lines", type=int, default=40, metavar="N", help="lines from the end of each file (default: 40)"
    )


def main(args: argparse.Namespace) -> int:
    from hpcai500.runs.state import runs_below

    folders = runs_below(Path(path) for path in args.paths)
    if not folders:
        raise InputError(
            f"{' '.join(args.paths)}: no run there", "give a run's folder: `hpcai500 status --json` lists them"
        )
    texts = {
        str(folder / "logs" / name): _tail(folder / "logs" / name, args.lines)
        for folder in folders
        for name in _FILES
    }
    if args.json:
        print_json(texts)
        return 0
    for folder in folders:
        own = {path: text for path, text in texts.items() if Path(path).parent.parent == folder and text}
        print("\n".join(f"==> {path} <==\n{text}" for path, text in own.items()) or f"{folder}: nothing printed yet")
    return 0


def _tail(path: Path, num_lines: int) -> str:
    """The last lines of a log; empty if there is none."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:])
