"""Running a start command on this machine, and reporting in one line why it ended."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil

from hpcai500.errors import (
    Failure,
    HpcAi500Error,
    InputError,
    MachineError,
    PreemptedError,
    RankError,
    parse_failure,
)
from hpcai500.events.payloads import RunFailure, RunStop
from hpcai500.events.reader import first, read_events
from hpcai500.events.vocabulary import Key, RunStatus
from hpcai500.events.writer import EventWriter
from hpcai500.launch.diagnosis import START_MARK, explain
from hpcai500.launch.launcher import StartCommand
from hpcai500.spec.run import RunSpec

_GRACE_SEC = 60.0
"""Seconds from SIGTERM to SIGKILL, in which the ranks finish their step and write a checkpoint."""

_AGAIN_SEC = 1.0
_TWICE_SEC = 0.5


def run_ranks(command: StartCommand, spec: RunSpec, *, quiet: bool) -> None:
    """Run `command` to its end, and close the run's log if its ranks could not.

    Raises:
        HpcAi500Error: with the first rank's reason.
    """
    failure = execute(command, spec.folder / "logs" / "stderr.log", quiet=quiet)
    if failure is None:
        return
    if not isinstance(failure, PreemptedError):
        close_log(spec.folder / "events.log", failure)
    raise failure


def execute(command: StartCommand, log: Path, *, quiet: bool) -> HpcAi500Error | None:
    """Run `command` to its end, with its stderr in `log`. Return why it failed; None if it did not.

    A signal or Ctrl-C asks the ranks to stop and waits for them. A second one kills them.
    """
    stop = _Stop(command)
    with handled(stop.note, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        process = subprocess.Popen(
            command.argv,
            env=command.env,
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            stop.watch(process)
            with process.stderr:
                failures, tail = follow(process.stderr, log)
            code = process.wait()
        except BaseException:
            kill_tree(process)
            process.wait()
            raise
    if not code:
        return None
    return stop.outcome(explain(failures, tail, code, log, is_rank=command.argv == command.rank_command))


class _Stop:
    """Asks the ranks to stop at a first signal, and kills them at a second one or after `_GRACE_SEC`."""

    def __init__(self, command: StartCommand) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._name = ""
        self._noted = -math.inf
        self._asking = self._ended = False

    def watch(self, process: "subprocess.Popen[str]") -> None:
        """Watch `process`, which runs the command. A signal that came before is acted on now."""
        self._process = process
        self._begin()

    def note(self, name: str) -> None:
        """Act on a signal, given by its name."""
        now, earlier = time.monotonic(), self._noted
        if now - earlier < _TWICE_SEC:  # one Ctrl-C may come as several signals
            return
        self._noted = now
        if self._name:
            self._end()
            return
        self._name = name
        self._begin()
        print("stopping after this step; a second signal ends it at once", file=sys.stderr)

    def _begin(self) -> None:
        if self._process and self._name and not self._asking:
            self._asking = True
            Thread(target=self._ask, args=(self._process,), daemon=True).start()

    def _ask(self, process: "subprocess.Popen[str]") -> None:
        """Ask again every second: ranks that start later, and a launcher that is not ready, miss the first signal."""
        deadline = time.monotonic() + _GRACE_SEC
        ask_to_stop(process, self._command)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_AGAIN_SEC)
            if not self._command.is_asked_once and process.poll() is None:
                ask_to_stop(process, self._command)
        if process.poll() is None:
            self._end()

    def _end(self) -> None:
        self._ended = True
        if self._process:
            kill_tree(self._process)

    def outcome(self, failure: HpcAi500Error) -> HpcAi500Error:
        """The error to report for `failure`. After a request to stop it is a stop, whatever the ranks were doing."""
        if not self._name or isinstance(failure, PreemptedError):
            return failure
        if self._ended:
            return RankError(f"ended by {self._name}", "--resume continues it")
        if isinstance(failure, InputError | MachineError):
            return failure
        return PreemptedError(f"stopped by {self._name}", "`--resume` continues it")


@contextmanager
def handled(handler: Callable[[str], None], *numbers: signal.Signals) -> Iterator[None]:
    """Call `handler` with the name of each of these signals, so that no rank outlives its launcher."""

    def handle(number: int, _: object) -> None:
        handler(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ask_to_stop(process: "subprocess.Popen[str]", command: StartCommand) -> None:
    """Ask the ranks to finish their step and stop; through their launcher if it passes signals on."""
    if not command.signals_ranks:
        process.send_signal(command.stop_signal)
        return
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if (
                    tuple(one.cmdline()[1:]) == command.rank_command[1:]
                ):  # neither the shell around it nor its launcher
                    one.send_signal(command.stop_signal)


def kill_tree(process: "subprocess.Popen[Any]") -> None:
    """Kill the launcher and all processes that it started, also those in other sessions."""
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(process.pid)
        for one in [*launcher.children(recursive=True), launcher]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def follow(stream: IO[str], log: Path) -> tuple[list[Failure], str]:
    """Copy `stream` to `log`. Return the failures that ranks reported, and the end of the text.

    A full disk stops the copy, but not the reading.
    """
    failures: list[Failure] = []
    tail: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        writable = True
        for line in chain([f"{START_MARK}\n"], stream):
            failure = parse_failure(line)
            failures += [failure] if failure else []
            tail = [*tail[-80:], line]
            try:
                if writable:
                    file.write(line)
                    file.flush()
            except OSError:
                writable = False
    return failures, "".join(tail)


def close_log(path: Path, failure: HpcAi500Error) -> None:
    """End the log of a run whose rank 0 could not: write the cause, and `run_stop` as aborted."""
    if not path.exists():
        return
    events = read_events(path)
    if first(events, Key.RUN_STOP):
        return
    writer = EventWriter(path)
    try:
        writer.log(RunFailure.of(str(failure), "aborted"))
        writer.log(RunStop.of(RunStatus.ABORTED))
        writer.sync()
    except HpcAi500Error:
        pass  # disk full: a missing run_stop means the same
    finally:
        writer.close()
