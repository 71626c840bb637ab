"""Read a run's files, which somebody else may have written: its result and its record."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from hpcai500.errors import InputError
from hpcai500.files import read_plain
from hpcai500.score.record.result import Result, derive
from hpcai500.score.record.soundness import MOST_BYTES, require_plain_files
from hpcai500.score.record.source import Source
from hpcai500.spec.models import parse

MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a hostile file may raise: one reason each, never a traceback."""


class LeftOut(NamedTuple):
    """A result that counts nowhere, and why."""

    source: Source
    reason: str

    @property
    def path(self) -> str:
        """As a reader knows it."""
        return str(self.source)


def newest_result(file: Path) -> Result:
    """`result.json`, or what follows from the run's files where they are newer, as after a job that was killed."""
    folder = file.parent
    require_plain_files(folder)
    try:
        result = _read(file)
    except FileNotFoundError:
        return derive(folder)
    if result.status == "success":
        return result
    log = folder / "events.log"
    is_stale = log.exists() and log.stat().st_mtime > file.stat().st_mtime and (folder / "run.json").exists()
    return derive(folder) if is_stale else result


def _read(file: Path) -> Result:
    content = read_plain(file, MOST_BYTES)
    try:
        return Result.model_validate_json(content)
    except ValidationError:
        try:
            record = json.loads(content.decode())  # of bytes it would take UTF-16 too
        except ValueError as error:
            raise InputError(f"{file.name}: not valid JSON ({error})") from error
        return parse(Result, record, file.name)  # which says what is wrong


def run_record(source: Source) -> dict[str, Any]:
    """The `run.json` beside a result; empty where there is none that can be read."""
    try:
        record = json.loads(read_plain(source.on_disk.with_name("run.json"), MOST_BYTES).decode())
    except (InputError, OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
