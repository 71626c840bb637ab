"""Running a plan from this machine, and saying in one line why it ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

import psutil

from hpcai500.errors import Failure, HpcAi500Error, PreemptedError, RankError, parse_failure
from hpcai500.events.reader import first, read_events
from hpcai500.events.vocabulary import Key, RunStatus
from hpcai500.events.writer import EventWriter
from hpcai500.launch.cores import physical_cores
from hpcai500.launch.diagnosis import START_MARK, explain
from hpcai500.launch.plan import Plan, plan_horovodrun, plan_local, plan_mpirun
from hpcai500.launch.script import WORKER
from hpcai500.spec.run import RunSpec

_GRACE_SEC = 60.0
"""From SIGTERM to SIGKILL: the ranks finish their step and write a checkpoint."""

_TWICE_SEC = 0.5


def run_local(spec: RunSpec, *, quiet: bool = False) -> None:
    """Start all ranks here and wait for them.

    Raises:
        HpcAi500Error: with the first rank's reason and exit code; events.log then ends with `run_stop`, unless the
            run was asked to stop and can go on.
    """
    run_plan(plan_here(spec), spec, quiet=quiet)


def plan_here(spec: RunSpec) -> Plan:
    """How this machine starts all ranks of `spec`."""
    python, num_cores, env = sys.executable, len(physical_cores(os.sched_getaffinity(0))), dict(os.environ)
    if spec.launcher == "mpirun":
        return plan_mpirun(spec, python=python, num_cores=num_cores, env=env, as_root=os.geteuid() == 0)
    plan = plan_horovodrun if spec.launcher == "horovodrun" else plan_local
    return plan(spec, python=python, num_cores=num_cores, env=env)


def run_plan(plan: Plan, spec: RunSpec, *, quiet: bool) -> None:
    """Run `plan` to its end, and close the run's log if its ranks could not."""
    failure = execute(plan, spec.folder / "logs" / "stderr.log", quiet=quiet)
    if failure is None:
        return
    if not isinstance(failure, PreemptedError):
        close_log(spec.folder / "events.log", failure)
    raise failure


def execute(plan: Plan, log: Path, *, quiet: bool) -> HpcAi500Error | None:
    """Run `plan` to its end, its stderr into `log`; why it failed, if it did.

    A signal or Ctrl-C asks the ranks to stop and waits for them; a second one ends them.
    """
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
    asked: list[str] = []
    asked_at: list[float] = []

    def end(name: str) -> None:
        now = time.monotonic()
        if asked and now - asked_at[-1] < _TWICE_SEC:  # one Ctrl-C may come as several signals
            return
        asked.append(name)
        asked_at.append(now)
        if len(asked) > 1:
            kill_tree(process)
            return
        ask_to_stop(process, plan)
        killer.start()
        print("stopping after this step; once more to end at once", file=sys.stderr)

    killer = threading.Timer(_GRACE_SEC, lambda: kill_tree(process))
    killer.daemon = True
    try:
        with handled(end, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            told, tail = follow(process.stderr, log)
            code = process.wait()
    except BaseException:
        kill_tree(process)
        process.wait()
        raise
    finally:
        killer.cancel()
    if code == 0:
        return None
    failure = explain(told, tail, code, log)
    if asked and not isinstance(failure, PreemptedError):
        return RankError(f"ended by {asked[0]}", "--resume goes on with it")
    return failure


@contextmanager
def handled(handler: Callable[[str], None], *numbers: signal.Signals) -> Iterator[None]:
    """Have these signals call `handler` with their name, so that no rank outlives its launcher."""

    def handle(number: int, _: object) -> None:
        handler(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ask_to_stop(process: "subprocess.Popen[str]", plan: Plan) -> None:
    """Have the ranks finish their step, through their launcher where it passes a signal on."""
    if not plan.signals_ranks:
        process.send_signal(plan.stop_signal)
        return
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if WORKER in one.cmdline():  # a word of its own: not the shell around it
                    one.send_signal(plan.stop_signal)


def kill_tree(process: "subprocess.Popen[Any]") -> None:
    """End the launcher and all that it started, in whatever session."""
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(process.pid)
        for one in [*launcher.children(recursive=True), launcher]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def follow(stream: IO[str], log: Path) -> tuple[list[Failure], str]:
    """Copy `stream` to `log`; the failures that ranks told of, and the end of the text.

    A disk that is full stops the copy, not the reading.
    """
    told: list[Failure] = []
    tail: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        writable = True
        for line in chain([f"{START_MARK}\n"], stream):
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
