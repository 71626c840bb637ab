"""Finding results: what may be ranked, and what may not, each with its reason."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from hpcai500.errors import InputError
from hpcai500.score.folders import run_places
from hpcai500.score.result import Result, derive
from hpcai500.score.soundness import MOST_BYTES, fault, identity_fault, require_plain_files
from hpcai500.spec.models import parse

_DIVERGED = ("status diverged",)
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a hostile file may raise: one reason each, never a traceback."""


class LeftOut(NamedTuple):
    """A result that counts nowhere, and why."""

    path: str
    reason: str


class Run(NamedTuple):
    path: Path
    """Of result.json, written or not."""
    result: Result
    """Without its epochs: many runs with many epochs fill the memory."""


class Collected(NamedTuple):
    runs: list[Run]
    """What may be ranked: each seed of an experiment once."""
    left_out: list[LeftOut]
    diverged: list[Run]
    """Left out too; they count as runs that never reached the target."""
    repeated: list[tuple[Run, Run]]
    """Runs of one experiment and seed: the one that counts, and another, left out."""
    published: list[Path]


def collect(paths: Iterable[Path]) -> Collected:
    """Every result at or below `paths`, and the published lists (CSV files) among them.

    Raises:
        InputError: for a path that does not exist.
    """
    collected = Collected([], [], [], [], [])
    files: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder", "run `hpcai500 run` first, or name another path")
        if path.suffix == ".csv":
            collected.published.append(path)
            continue
        root = path.resolve()
        for file in _results(path, collected.left_out) if path.is_dir() else [path]:
            files.setdefault(str(root / file.relative_to(path)), file)
    counted: dict[tuple[str | int, ...], Run] = {}
    for file in sorted(files.values()):
        _take(file, collected, counted)
    return collected


def _take(file: Path, collected: Collected, counted: dict[tuple[str | int, ...], Run]) -> None:
    shown = one_line(str(file))
    try:
        if shown != str(file):
            raise InputError("its path holds what no terminal and no page should print", "rename the folder")
        result = newest_result(file)
        reason = _why_not(result)
    except (InputError, OSError) as error:
        collected.left_out.append(LeftOut(shown, one_line(str(error))))
        return
    except MALFORMED as error:
        collected.left_out.append(LeftOut(shown, one_line(f"malformed: {type(error).__name__}: {error}")))
        return
    run = Run(file, result.model_copy(update={"epochs": ()}))
    has_diverged = result.unranked == _DIVERGED and identity_fault(result) is None
    if reason and not has_diverged:
        collected.left_out.append(LeftOut(shown, one_line(reason)))
        return
    identity = result.identity
    fields = ("workload", "problem", "level", "system", "accelerator", "experiment_digest", "seed")
    first = counted.setdefault(tuple(getattr(identity, field) for field in fields), run)
    if first is not run:
        why = f"seed {identity.seed} of this experiment counts once: {first.path} does"
        collected.left_out.append(LeftOut(shown, why))
        collected.repeated.append((first, run))
    elif has_diverged:
        collected.left_out.append(LeftOut(shown, one_line(reason or "")))
        collected.diverged.append(run)
    else:
        collected.runs.append(run)


def _results(folder: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    """The place of every result below `folder`, written or not."""

    def unreadable(error: OSError) -> None:
        left_out.append(LeftOut(one_line(str(error.filename)), f"{error.strerror}: what lies below it is unknown"))

    for place in run_places(folder, unreadable):
        yield place / "result.json"


def newest_result(file: Path) -> Result:
    """`result.json`, or what follows from the run's files where they are newer, as after a job that was killed."""
    require_plain_files(file.parent)
    if not file.exists():
        return derive(file.parent)
    result = _read(file)
    log = file.parent / "events.log"
    is_stale = (
        result.status != "success"
        and log.exists()
        and log.stat().st_mtime > file.stat().st_mtime
        and (file.parent / "run.json").exists()
    )
    return derive(file.parent) if is_stale else result


def _read(file: Path) -> Result:
    if not file.is_file() or file.stat().st_size > MOST_BYTES:
        raise InputError("no plain file of the size of a result")
    text = file.read_bytes()
    try:
        return Result.model_validate_json(text)
    except ValidationError:
        try:
            record = json.loads(text)
        except ValueError as error:
            raise InputError(f"not valid JSON ({error})") from error
        version = record.get("schema_version") if isinstance(record, dict) else None
        if isinstance(version, int) and version > 1:
            raise InputError(f"schema version {version}, newer than this hpcai500 reads", "update it") from None
        return parse(Result, record, file.name)  # which says what is wrong


def _why_not(result: Result) -> str | None:
    """Why a readable result counts nowhere: its own reasons, or figures that contradict each other."""
    if result.unranked:
        return ", ".join((*result.unranked, *([result.failure] if result.failure else [])))
    if result.status != "success":
        return f"status {result.status}"
    return fault(result)


def one_line(text: str) -> str:
    """`text` without line breaks and what a terminal would act on."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """`text` without what a terminal would act on."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def run_record(run: Run) -> dict[str, Any]:
    """The `run.json` beside a result; empty where there is none that can be read."""
    try:
        record = json.loads((run.path.parent / "run.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
