"""Running a foreign program: its stdout becomes its log, and our clock is read when its run starts and stops."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from hpcai500.errors import InputError, OccupiedError, RankError
from hpcai500.files import storage
from hpcai500.launch.process import handled, kill_tree

_MOST_LINE_BYTES = 2**20
_MARK = re.compile(rb':::MLLOG.*"key"\s*:\s*"(run_start|run_stop)"')


class ProgramTimes(NamedTuple):
    """Times of a foreign program by our clock, in milliseconds since 1970."""

    started_ms: float
    ended_ms: float
    arrivals_ms: dict[str, float]
    """When the first lines of `run_start` and `run_stop` arrived."""


def run_program(argv: Sequence[str], log: Path, *, quiet: bool) -> ProgramTimes:
    """Run `argv` to its end and write its stdout into `log`, a new file, and to our stdout unless `quiet`.

    Raises:
        OccupiedError: if `log` already exists.
        InputError: if the program cannot be started.
        RankError: if it fails; its log is kept.
    """
    arrivals: dict[str, float] = {}
    ended_by: list[str] = []
    with storage(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = log.open("xb")
        except FileExistsError as error:
            raise OccupiedError(
                f"{log} already exists", "give the log another name, or ingest it without --run"
            ) from error
    with file:
        started_ms = _now_ms()
        try:
            process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        except (OSError, ValueError) as error:
            log.unlink()
            raise InputError(f"--run {argv[0]}: {getattr(error, 'strerror', None) or error}") from error

        def end(name: str) -> None:
            ended_by.append(name)
            kill_tree(process)

        assert process.stdout is not None
        with process.stdout, handled(end, signal.SIGTERM, signal.SIGHUP):
            try:
                _copy(process.stdout, file, log, arrivals, quiet=quiet)
            except BaseException:
                kill_tree(process)
                raise
            finally:
                code = process.wait()
    if ended_by or code:
        how = f"was ended by {ended_by[0]}" if ended_by else f"ended with exit code {code}"
        raise RankError(f"{argv[0]} {how}", f"what it wrote is in {log}")
    return ProgramTimes(started_ms, _now_ms(), arrivals)


def _copy(stream: IO[bytes], file: IO[bytes], log: Path, arrivals: dict[str, float], *, quiet: bool) -> None:
    while line := stream.readline(_MOST_LINE_BYTES):
        if found := _MARK.search(line):
            arrivals.setdefault(found[1].decode(), _now_ms())
        with storage(log):
            file.write(line)
            file.flush()
        if not quiet:
            sys.stdout.write(line.decode(errors="replace"))
            sys.stdout.flush()


def _now_ms() -> float:
    return time.time_ns() / 1e6
