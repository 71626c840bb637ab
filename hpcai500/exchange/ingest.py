"""A foreign program's log as a run's folder that is checked and ranked like any other."""

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpcai500.errors import HpcAi500Error, InputError, OccupiedError
from hpcai500.events.reader import Event
from hpcai500.exchange.foreign import read_log, spec_of, system_of
from hpcai500.files import new_folder, read_json, storage, write_atomic, write_json
from hpcai500.launch.program import ProgramTimes
from hpcai500.score.record.manifest import Manifest, seal, sha256_of
from hpcai500.score.record.reading import MALFORMED
from hpcai500.score.record.result import Result, read_result, write_result
from hpcai500.score.record.run_files import MANIFEST
from hpcai500.score.record.soundness import bound_fault
from hpcai500.score.record.timing import TIMING, Timing
from hpcai500.spec.foreign_run import ForeignRun
from hpcai500.spec.models import parse
from hpcai500.text import one_line

_HINT = "see docs/results-format.md"


@dataclass(frozen=True, kw_only=True)
class ForeignLog:
    """A log, and its user's options for the program that wrote it."""

    path: Path
    workload: str
    problem: str = "full"
    system: str | None = None
    """The machine's name; None: as the log has it."""
    seed: int | None = None
    """None: as the log has it."""
    nodes: int = 1
    source: Path | None = None
    """The folder of the program's source, if it is disclosed."""
    argv: tuple[str, ...] = ()
    """The command line, if this package started the program."""
    watched: ProgramTimes | None = None
    """When the program ran, by this machine's clock, if this package started it."""


class Ingested(NamedTuple):
    folder: Path
    result: Result
    is_new: bool
    """False if the same log had been ingested already."""


def ingest(log: ForeignLog, output: Path) -> Ingested:
    """Store the log's run below the results directory `output`, unless it is there.

    Raises:
        InputError: for a log that is not a run, or that contradicts the options.
        OccupiedError: if another run has the same log, or the run's folder has another log.
    """
    events = read_log(log.path)
    spec = spec_of(
        events,
        log.path,
        workload=log.workload,
        problem=log.problem,
        output=str(output),
        system=log.system,
        seed=log.seed,
        nodes=log.nodes,
        source=log.source,
        argv=log.argv,
    )
    twin = find_log(output, sha256_of(log.path))
    if twin and twin != spec.folder:
        raise OccupiedError(f"{log.path}: {twin} already has the same log", "one log is one run")
    if twin:
        return Ingested(spec.folder, read_result(twin / "result.json"), is_new=False)
    return Ingested(spec.folder, store(spec, events, log), is_new=True)


def find_log(output: Path, sha256: str) -> Path | None:
    """The folder of the run below `output` whose log has this digest."""
    for path in output.rglob(MANIFEST):
        try:
            manifest = parse(Manifest, read_json(path), path)
        except HpcAi500Error:
            continue  # another program's file, or a broken one, which `check` reports
        if manifest.sha256.get("events.log") == sha256:
            return path.parent
    return None


def store(spec: ForeignRun, events: list[Event], log: ForeignLog) -> Result:
    """Write the run's whole folder, or nothing.

    Raises:
        OccupiedError: if the folder has another log of the same experiment and seed.
        InputError: if no sound figures follow from the log.
    """
    occupied = OccupiedError(
        f"{spec.folder} holds another log of this experiment and seed", "give another --output, or remove it"
    )
    if spec.folder.exists():
        raise occupied
    timing = _timing_of(log.watched) if log.watched else None
    captured = _capture() if timing and spec.nodes == 1 else {}
    system = system_of(spec, events, log.path, captured, platform.node())
    try:
        with new_folder(spec.folder) as folder:
            with storage(folder):
                shutil.copyfile(log.path, folder / "events.log")
                (folder / "logs").mkdir()
            write_atomic(folder / "run.json", spec.model_dump_json(indent=2) + "\n")
            write_json(folder / "system.json", system)
            if timing:
                write_json(folder / TIMING, timing.model_dump(mode="json"))
            result = _sound_result(folder, log.path)
            seal(folder)
    except FileExistsError as error:
        raise occupied from error
    return result


def _sound_result(folder: Path, log: Path) -> Result:
    """The result of a new run's folder.

    Raises:
        InputError: if it cannot be derived, or a figure is impossible and the run claims to be ranked.
    """
    try:
        result = write_result(folder)
        reason = None if result.status != "success" else bound_fault(result)
    except HpcAi500Error as error:
        error.relocate(folder / "events.log", log)
        error.relocate(folder, log.parent)
        raise InputError(str(error), _HINT) from error
    except MALFORMED as error:
        reason = f"a record is malformed ({type(error).__name__}: {error})"
        raise InputError(one_line(f"{log}: {reason}")[:400], _HINT) from error
    if reason and not result.unranked:
        raise InputError(f"{log}: {one_line(reason)}", _HINT)
    return result


def _timing_of(watched: ProgramTimes) -> Timing:
    return Timing(
        started_ms=watched.started_ms,
        ended_ms=watched.ended_ms,
        run_start_ms=watched.arrivals_ms.get("run_start"),
        run_stop_ms=watched.arrivals_ms.get("run_stop"),
    )


def _capture() -> dict[int, dict[str, Any]]:
    """Layers 1 and 2 of this machine, on which the program has just run; only the program knows the others."""
    from hpcai500.system.hardware import hardware
    from hpcai500.system.software import operating_system

    return {1: hardware(), 2: operating_system()}
