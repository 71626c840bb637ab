"""Running a plan on this machine, and saying in one line why it ended."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hpcai500.errors import (
    Failure,
    HpcAi500Error,
    InputError,
    MachineError,
    RankError,
    ShortfallError,
    parse_failure,
)
from hpcai500.events.reader import first, read_events
from hpcai500.events.vocabulary import Key, RunStatus
from hpcai500.events.writer import EventWriter
from hpcai500.launch.plan import Plan, plan_local
from hpcai500.spec.run import RunSpec

_GRACE_SEC = 8.0
"""From SIGTERM to SIGKILL, for a launcher that the user interrupts."""

_DEATH = re.compile(r"local_rank: (\d+)\)\s*exitcode\s*:\s*(-\d+)")
"""torchrun's report of the first rank that a signal ended."""


def run_local(spec: RunSpec, *, quiet: bool = False) -> None:
    """Start all ranks here and wait for them.

    Raises:
        HpcAi500Error: with the first rank's reason and exit code; events.log then ends with `run_stop`.
    """
    plan = plan_local(spec, python=sys.executable, num_cores=len(os.sched_getaffinity(0)), env=dict(os.environ))
    failure = execute(plan, spec.folder / "logs" / "stderr.log", quiet=quiet)
    if failure:
        close_log(spec.folder / "events.log", failure)
        raise failure


def execute(plan: Plan, log: Path, *, quiet: bool) -> HpcAi500Error | None:
    """Run `plan` to its end, its stderr into `log`; why it failed, if it did."""
    process = subprocess.Popen(
        plan.argv,
        env=plan.env,
        stdout=subprocess.DEVNULL if quiet else None,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        with ended_by(signal.SIGTERM, signal.SIGHUP):
            told, tail = follow(process.stderr, log)
            code = process.wait()
    except KeyboardInterrupt as interrupt:
        end_group(process)
        return RankError(str(interrupt) or "interrupted from the keyboard")
    except BaseException:
        end_group(process)
        raise
    return None if code == 0 else explain(told, tail, code, log)


@contextmanager
def ended_by(*numbers: signal.Signals) -> Iterator[None]:
    """Have these signals interrupt as the keyboard does, so that no rank outlives its launcher."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(stream: IO[str], log: Path) -> tuple[list[Failure], str]:
    """Copy `stream` to `log`; the failures that ranks told of, and the end of the text.

    A disk that is full stops the copy, not the reading.
    """
    told: list[Failure] = []
    tail: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        writable = True
        for line in stream:
            failure = parse_failure(line)
            told += [failure] if failure else []
            tail = [*tail[-80:], line]
            try:
                if writable:
                    file.write(line)
                    file.flush()
            except OSError:
                writable = False
    return told, "".join(tail)


def explain(told: list[Failure], tail: str, code: int, log: Path) -> HpcAi500Error:
    """The first cause: what a rank said of itself, else the signal that torchrun saw, else the log's place."""
    if told:
        # A rank whose peer died reports a lost connection: prefer one that knows a reason of its own.
        cause = min(told, key=lambda failure: failure.exit_code == HpcAi500Error.exit_code)
        if cause.exit_code != HpcAi500Error.exit_code or not _DEATH.search(tail):
            return _as_error(cause)
    if death := _DEATH.search(tail):
        name = signal.Signals(-int(death[2])).name
        hint = "the machine may have run out of memory" if name == "SIGKILL" else ""
        return RankError(f"rank {death[1]} was ended by {name}", hint)
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "no output")
    return HpcAi500Error(f"the launcher ended with exit code {code}: {last}", f"see {log}")


def _as_error(failure: Failure) -> HpcAi500Error:
    classes: dict[int, type[HpcAi500Error]] = {1: ShortfallError, 2: InputError, 3: MachineError}
    kind = classes.get(failure.exit_code, HpcAi500Error)
    return kind(f"rank {failure.rank}: {failure.message}", failure.hint)


def end_group(process: "subprocess.Popen[str]") -> None:
    """SIGTERM, a grace, SIGKILL: to the launcher and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_GRACE_SEC)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        pass


def close_log(path: Path, failure: HpcAi500Error) -> None:
    """End the log of a run whose rank 0 could not: the cause, and `run_stop` as aborted."""
    if not path.exists():
        return
    events = read_events(path)
    if first(events, Key.RUN_STOP):
        return
    writer = EventWriter(path)
    try:
        writer.point(Key.FAILURE, str(failure), status="aborted")
        writer.end(Key.RUN_STOP, None, status=RunStatus.ABORTED.value)
        writer.sync()
    except HpcAi500Error:
        pass  # a full disk: the missing run_stop says the same
    finally:
        writer.close()
