"""Read a run's result, which somebody else may have written."""

import json
from pathlib import Path

from pydantic import ValidationError

from hpcai500.errors import InputError
from hpcai500.score.record.result import Result, derive
from hpcai500.score.record.run_files import LOG, RUN, RunFiles
from hpcai500.score.record.source import SourceName
from hpcai500.spec.models import Frozen, parse

MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a hostile file may raise: each becomes one reason, never a traceback."""


class NotRanked(Frozen):
    """A result that counts nowhere, and why."""

    path: SourceName
    reason: str


def newest_result(run: Path | RunFiles) -> Result:
    """The result in a file or in a run's files; derived from the other files if these are newer, or it is missing.

    They are newer after a job that was killed.

    Raises:
        InputError: for a file that is no result; OSError.
    """
    files = run if isinstance(run, RunFiles) else RunFiles(run.parent, result=run.name)
    files.require_regular()
    try:
        result = _stored(files)
    except FileNotFoundError:
        return derive(files)
    if result.status == "success":
        return result
    return derive(files) if _is_stale(files) else result


def _is_stale(files: RunFiles) -> bool:
    log, result = files.path(LOG), files.path(files.result_name)
    return log.exists() and log.stat().st_mtime > result.stat().st_mtime and files.exists(RUN)


def _stored(files: RunFiles) -> Result:
    name = files.result_name
    content = files.content(name)
    try:
        return Result.model_validate_json(content)
    except ValidationError:
        try:
            record = json.loads(content.decode())  # loads would take the bytes of UTF-16 too
        except ValueError as error:
            raise InputError(f"{name}: not valid JSON ({error})") from error
        return parse(Result, record, name)  # it names what is wrong
