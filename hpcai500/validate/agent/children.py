"""Child processes that measure for an agent: one that hangs or crashes is killed, and named in a trouble.

`python -m hpcai500.validate.agent.children STAGE FOLDER NODE [WORD…]` writes its own file of measurements.
"""

import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import cast

from hpcai500.launch.process import kill_tree
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Observation, Stage, Trouble, append, read_order, read_plan

_POLL_SEC = 0.05
_READY = b"ready\n"
_LATE_SEC = 10.0
"""Time that a node waits beyond its own limit for one that started later and is still killing a late child."""
_REPORTED = 4
"""Exit code of a child that has written its own trouble."""

Child = subprocess.Popen[bytes]


def run_children(
    seat: Seat,
    stage: Stage,
    children: Sequence[Sequence[str]],
    *,
    in_step: str = "",
    environments: Sequence[Mapping[str, str]] | None = None,
) -> Iterator[Observation]:
    """Start one child for each list of words, wait for all, and yield a trouble for each that failed.

    With `in_step`, a name of the moment, `measure` yields None once it has imported what it needs. It continues
    when the children of all nodes are ready; its time limit begins then. A child that is not ready in time is killed
    before the barrier, so that it neither delays the others nor uses up their time.

    `environments` has variables for each child, in addition to this process's own.
    """
    started = {
        f"{stage} {' '.join(words)}".strip(): _start(seat, stage, words, variables, pipe=bool(in_step))
        for words, variables in zip(children, environments or [{}] * len(children), strict=True)
    }
    running = dict(started)
    try:
        if in_step:
            for what in _late(started, seat.order.step_timeout_sec):
                kill_tree(running.pop(what))
                yield _timeout(seat, stage, f"{what} was not ready to measure")
            seat.wait(f"{stage}: {in_step}", late_sec=_LATE_SEC)
            seat.step(stage, f"{in_step} at work")
            for child in running.values():
                _release(child)
        yield from _await(seat, stage, running)
    finally:
        for child in started.values():
            if child.poll() is None:
                kill_tree(child)
            child.communicate()


def _start(seat: Seat, stage: Stage, words: Sequence[str], variables: Mapping[str, str], *, pipe: bool) -> Child:
    stream = subprocess.PIPE if pipe else None
    return subprocess.Popen(
        [*command(stage, seat), *words],
        env={**os.environ, **variables},
        stdin=stream,
        stdout=stream,
        start_new_session=True,
    )


def _late(started: Mapping[str, Child], limit_sec: float) -> list[str]:
    """Names of the children that are not ready within `limit_sec`."""
    deadline = time.monotonic() + limit_sec
    return [what for what, child in started.items() if not _is_ready(child, deadline)]


def _is_ready(child: Child, deadline: float) -> bool:
    """Whether by `deadline` the child waits to be released, or has ended."""
    assert child.stdout
    return bool(select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))[0])


def _release(child: Child) -> None:
    assert child.stdin
    with suppress(BrokenPipeError):
        child.stdin.write(b"\n")
        child.stdin.flush()


def _await(seat: Seat, stage: Stage, running: Mapping[str, Child]) -> Iterator[Trouble]:
    deadline = time.monotonic() + seat.order.step_timeout_sec
    while any(child.poll() is None for child in running.values()) and time.monotonic() < deadline:
        time.sleep(_POLL_SEC)
    for what, child in running.items():
        if (code := child.poll()) is None:
            yield _timeout(seat, stage, f"{what} did not end")
        elif code not in (0, _REPORTED):
            yield _failure(seat, stage, what, code)


def _timeout(seat: Seat, stage: Stage, what: str) -> Trouble:
    return Trouble(
        stage=stage,
        nodes=(seat.node,),
        kind="timeout",
        message=f"{what} within {seat.order.step_timeout_sec:g} s",
        remedy="see the node's log in the validation's folder, and dmesg on it for a hung driver, disk or network",
    )


def _failure(seat: Seat, stage: Stage, what: str, code: int) -> Trouble:
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = "see in dmesg whether the kernel killed it for lack of memory" if code == -signal.SIGKILL else ""
    return Trouble(stage=stage, nodes=(seat.node,), kind="failed", message=f"{what} {ended}", remedy=hint)


def command(stage: Stage, seat: Seat) -> list[str]:
    """Command that starts a child, without the child's own words."""
    return [sys.executable, "-m", "hpcai500.validate.agent.children", stage, str(seat.folder), seat.node]


def _wait_for_others() -> None:
    os.write(1, _READY)
    os.read(0, 1)


def main() -> int:
    stage, folder, node, *words = sys.argv[1:]
    seat = Seat(Path(folder), read_plan(Path(folder)), read_order(Path(folder)), node, None)
    module = import_module(f"hpcai500.validate.agent.stages.{stage}")
    measure: Callable[..., Iterable[Observation | None]] = module.measure
    writer = "-".join([node, stage, *(word for word in words if word.isalnum())])
    try:
        for found in measure(seat, *words):
            if found:
                append(seat.folder, writer, [found])
            else:
                _wait_for_others()
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no reason given").splitlines()[0]
        message = f"{type(error).__name__}: {first}"
        trouble = Trouble(stage=cast(Stage, stage), nodes=(node,), kind="failed", message=message)
        append(seat.folder, writer, [trouble])
        return _REPORTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
