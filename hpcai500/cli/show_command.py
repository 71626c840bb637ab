"""`hpcai500 show`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.errors import InputError
from hpcai500.report.run_text import run_text
from hpcai500.score.archives import Opened, opened
from hpcai500.score.collection import newest_result
from hpcai500.score.compliance import run_folders


def main(args: argparse.Namespace) -> int:
    with opened(args.paths, strict=True) as found:
        places = [place for path in found.paths for place in _places(path, found)]
        results = [newest_result(_place(place)) for place in places]
    if args.json:
        print_json([result.model_dump(mode="json") for result in results])
    else:
        print("\n\n".join(run_text(result) for result in results))
    return 0


def _places(path: Path, found: Opened) -> list[Path]:
    """`path`, or each run of an archive."""
    return run_folders(path) if str(path.parent) in found.labels else [path]


def _place(path: Path) -> Path:
    file = path / "result.json" if path.is_dir() else path
    if not file.exists() and not (file.parent / "run.json").exists():
        raise InputError(f"{path}: no run", "name the folder of one run, or its result.json")
    return file
