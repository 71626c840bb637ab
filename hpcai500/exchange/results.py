"""The results that a path or an archive names, read one by one."""

from pathlib import Path

from hpcai500.errors import HpcAi500Error, InputError
from hpcai500.score.record.folders import run_folders
from hpcai500.score.record.reading import MALFORMED, newest_result
from hpcai500.score.record.result import Result
from hpcai500.score.record.source import Source
from hpcai500.text import one_line


def result_sources(source: Source) -> list[Source]:
    """The path itself, or each run of an archive."""
    is_whole_archive = source.archive is not None and source.on_disk.parent == source.archive.folder
    return [source.at(folder) for folder in run_folders(source.on_disk)] if is_whole_archive else [source]


def read_source(source: Source) -> Result:
    """The result of a run's folder, or of its result.json.

    Raises:
        InputError: if there is no run, or its record is malformed.
    """
    file = source / "result.json" if source.on_disk.is_dir() else source
    if not file.on_disk.exists() and not (file.parent / "run.json").on_disk.exists():
        raise InputError("no run", "name the folder of one run, or its result.json", at=source.name)
    try:
        return newest_result(file.on_disk)
    except HpcAi500Error as error:
        if error.at is None:
            error.at = file.parent.name
        raise
    except MALFORMED as error:
        raise malformed(file.name, error) from error


def malformed(at: Path, error: Exception) -> InputError:
    """What to raise for one of `MALFORMED`."""
    fault = one_line(f"malformed: {type(error).__name__}: {error}")[:400]
    return InputError(fault, "ask for it again", at=at)
