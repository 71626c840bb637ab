"""`hpcai500 logs`: what a run's ranks printed."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.errors import InputError
from hpcai500.runs.state import run_folders

_FILES = ("stdout.log", "stderr.log")


def main(args: argparse.Namespace) -> int:
    folders = run_folders(Path(path) for path in args.paths)
    if not folders:
        raise InputError(
            f"{' '.join(args.paths)}: no run there", "give a run's folder: `hpcai500 status --json` lists them"
        )
    texts = {
        str(folder / "logs" / name): tail(folder / "logs" / name, args.lines) for folder in folders for name in _FILES
    }
    if args.json:
        print_json(texts)
        return 0
    for folder in folders:
        own = {path: text for path, text in texts.items() if Path(path).parent.parent == folder and text}
        print("\n".join(f"==> {path} <==\n{text}" for path, text in own.items()) or f"{folder}: nothing printed yet")
    return 0


def tail(path: Path, num_lines: int) -> str:
    """The last lines of a log; empty where there is none."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:])
