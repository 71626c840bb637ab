"""`hpcai500 ingest`: the log of a foreign program as a run that is checked and ranked like any other."""

import argparse
import platform
import shutil
from pathlib import Path
from typing import Any

from hpcai500.cli.output import print_json
from hpcai500.cli.run_command import summary_line
from hpcai500.errors import HpcAi500Error, InputError, OccupiedError
from hpcai500.events.reader import Event
from hpcai500.exchange.foreign import read_log, spec_of, system_of
from hpcai500.files import new_folder, read_json, storage, write_atomic, write_json
from hpcai500.launch.program import ProgramTimes, run_program
from hpcai500.score.record.manifest import MANIFEST, Manifest, seal, sha256_of
from hpcai500.score.record.reading import MALFORMED
from hpcai500.score.record.result import Result, read_result, write_result
from hpcai500.score.record.soundness import bound_fault
from hpcai500.score.record.timing import TIMING, Timing
from hpcai500.spec.foreign_run import ForeignRun
from hpcai500.spec.models import parse
from hpcai500.text import one_line


def main(args: argparse.Namespace) -> int:
    log = Path(args.log)
    argv = tuple(args.run[1:] if args.run and args.run[0] == "--" else args.run or ())
    if args.run is not None and not argv:
        raise InputError("--run: no program", "write it last: hpcai500 ingest LOG ... --run ./program ARGUMENTS")
    watched = run_program(argv, log, quiet=args.json) if argv else None
    output = Path(args.output).absolute()
    events = read_log(log)
    spec = spec_of(
        events,
        log,
        workload=args.workload,
        problem=args.problem,
        output=str(output),
        system=args.system,
        seed=args.seed,
        nodes=args.nodes,
        source=Path(args.source).absolute() if args.source else None,
        argv=argv,
    )
    twin = same_log(output, sha256_of(log))
    if twin and twin != spec.folder:
        raise OccupiedError(f"{log}: the same log stands in {twin} already", "one log is one run")
    if twin:
        result, state = read_result(twin / "result.json"), "ingested already, kept"
    else:
        result, state = store(spec, events, log, timing_of(watched)), "ingested"
    if args.json:
        print_json({"folder": str(spec.folder), "state": state, "result": result.model_dump(mode="json")})
    else:
        print(f"{summary_line(result)}\n{state}: {spec.folder}")
    return 0


def timing_of(watched: ProgramTimes | None) -> Timing | None:
    if watched is None:
        return None
    start, stop = (watched.arrivals_ms.get(key) for key in ("run_start", "run_stop"))
    return Timing(
        started_ms=watched.started_ms,
        ended_ms=watched.ended_ms,
        run_start_ms=start,
        run_stop_ms=stop,
    )


def same_log(output: Path, sha256: str) -> Path | None:
    """The folder of the run below `output` that was made of the same log."""
    for path in output.rglob(MANIFEST):
        try:
            manifest = parse(Manifest, read_json(path), path)
        except HpcAi500Error:
            continue  # of no run of ours, or broken: `check` says so
        if manifest.sha256.get("events.log") == sha256:
            return path.parent
    return None


def store(spec: ForeignRun, events: list[Event], log: Path, timing: Timing | None) -> Result:
    """Write the run's folder whole or not at all.

    Raises:
        OccupiedError: if another log of the same experiment and seed stands there.
        InputError: if no sound figures follow from the log.
    """
    occupied = OccupiedError(
        f"{spec.folder} holds another log of this experiment and seed", "give another --output, or remove it"
    )
    if spec.folder.exists():
        raise occupied
    captured = capture() if timing and spec.nodes == 1 else {}
    system = system_of(spec, events, log, captured, platform.node())
    try:
        with new_folder(spec.folder) as folder:
            with storage(folder):
                shutil.copyfile(log, folder / "events.log")
                (folder / "logs").mkdir()
            write_atomic(folder / "run.json", spec.model_dump_json(indent=2) + "\n")
            write_json(folder / "system.json", system)
            if timing:
                write_json(folder / TIMING, timing.model_dump(mode="json"))
            result = sound_result(folder, log)
            seal(folder)
    except FileExistsError as error:
        raise occupied from error
    return result


def sound_result(folder: Path, log: Path) -> Result:
    try:
        result = write_result(folder)
        reason = None if result.status != "success" else bound_fault(result)
    except HpcAi500Error as error:
        error.relocate(folder / "events.log", log)
        error.relocate(folder, log.parent)
        raise InputError(str(error), "see docs/results-format.md") from error
    except MALFORMED as error:
        reason = f"a record is not of the form that it must have ({type(error).__name__}: {error})"
        raise InputError(one_line(f"{log}: {reason}")[:400], "see docs/results-format.md") from error
    if reason and not result.unranked:
        raise InputError(f"{log}: {one_line(reason)}", "see docs/results-format.md")
    return result


def capture() -> dict[int, dict[str, Any]]:
    """Layers 1 and 2 of this machine, on which the program has just run; the others only it can know."""
    from hpcai500.system.hardware import hardware
    from hpcai500.system.software import operating_system

    return {1: hardware(), 2: operating_system()}
