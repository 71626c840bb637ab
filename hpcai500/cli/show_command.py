"""`hpcai500 show`."""

import argparse

from hpcai500.cli.output import print_json
from hpcai500.errors import HpcAi500Error, InputError
from hpcai500.exchange.archives import opened
from hpcai500.report.run import run_text
from hpcai500.score.record.folders import run_folders
from hpcai500.score.record.reading import MALFORMED, newest_result
from hpcai500.score.record.result import Result
from hpcai500.score.record.source import Source
from hpcai500.text import one_line


def main(args: argparse.Namespace) -> int:
    with opened(args.paths, strict=True) as found:
        places = [place for source in found.sources for place in _places(source)]
        results = [_read(_place(place)) for place in places]
    if args.json:
        print_json([result.model_dump(mode="json") for result in results])
    else:
        print("\n\n".join(_text(result, place) for result, place in zip(results, places, strict=True)))
    return 0


def _read(file: Source) -> Result:
    try:
        return newest_result(file.on_disk)
    except HpcAi500Error as error:
        if error.at is None:
            error.at = file.parent.name
        raise
    except MALFORMED as error:
        raise _malformed(file, error) from error


def _text(result: Result, place: Source) -> str:
    try:
        return run_text(result)
    except MALFORMED as error:  # finite figures whose sums are not
        raise _malformed(place, error) from error


def _malformed(source: Source, error: Exception) -> InputError:
    fault = one_line(f"malformed: {type(error).__name__}: {error}")[:400]
    return InputError(fault, "ask for it again", at=source.name)


def _places(source: Source) -> list[Source]:
    """The path, or each run of an archive."""
    is_whole_archive = source.archive is not None and source.on_disk.parent == source.archive.folder
    return [source.at(folder) for folder in run_folders(source.on_disk)] if is_whole_archive else [source]


def _place(source: Source) -> Source:
    file = source / "result.json" if source.on_disk.is_dir() else source
    if not file.on_disk.exists() and not (file.parent / "run.json").on_disk.exists():
        raise InputError("no run", "name the folder of one run, or its result.json", at=source.name)
    return file
