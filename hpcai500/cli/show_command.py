"""`hpcai500 show`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.errors import HpcAi500Error, InputError
from hpcai500.report.run_text import run_text
from hpcai500.score.archives import Opened, opened
from hpcai500.score.collection import MALFORMED, newest_result, one_line
from hpcai500.score.folders import run_folders
from hpcai500.score.result import Result


def main(args: argparse.Namespace) -> int:
    with opened(args.paths, strict=True) as found:
        places = [place for path in found.paths for place in _places(path, found)]
        results = [_read(_place(place)) for place in places]
    if args.json:
        print_json([result.model_dump(mode="json") for result in results])
    else:
        print("\n\n".join(_text(result, place) for result, place in zip(results, places, strict=True)))
    return 0


def _read(file: Path) -> Result:
    try:
        return newest_result(file)
    except HpcAi500Error as error:
        if str(file.parent) not in error.message:
            error.message = f"{file.parent}: {error.message}"
        raise
    except MALFORMED as error:
        raise _malformed(file, error) from error


def _text(result: Result, place: Path) -> str:
    try:
        return run_text(result)
    except MALFORMED as error:  # finite figures whose sums are not
        raise _malformed(place, error) from error


def _malformed(path: Path, error: Exception) -> InputError:
    return InputError(one_line(f"{path}: malformed: {type(error).__name__}: {error}")[:400], "ask for it again")


def _places(path: Path, found: Opened) -> list[Path]:
    """`path`, or each run of an archive."""
    return run_folders(path) if str(path.parent) in found.labels else [path]


def _place(path: Path) -> Path:
    file = path / "result.json" if path.is_dir() else path
    if not file.exists() and not (file.parent / "run.json").exists():
        raise InputError(f"{path}: no run", "name the folder of one run, or its result.json")
    return file
