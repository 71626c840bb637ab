"""Processes that measure for an agent: what hangs or crashes in one ends with it, and is named.

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
from hpcai500.validate.agent.seat import Found, Place
from hpcai500.validate.files import Stage, Trouble, append, read_order, read_plan

_POLL_SEC = 0.05
_READY = b"ready\n"
_LATE_SEC = 10.0
"""That a node waits beyond its own limit for one that began later, and gives a child up at the end of its own."""
_TOLD = 4
"""Exit code of a child that has written its own trouble."""


def run_children(
    place: Place,
    stage: Stage,
    children: Sequence[Sequence[str]],
    *,
    in_step: str = "",
    told: Sequence[Mapping[str, str]] | None = None,
) -> Iterator[Found]:
    """Start one child for each list of words, and wait for all: what became of those that did not end well.

    With `in_step`, a name for the moment, the `measure` of each yields None when it has imported what it needs, and
    goes on when those of all nodes have; its time begins then. Who is not ready within a step's limit is ended before
    the others are met: it holds them no longer, and costs them none of their own time.

    `told` are variables of each child beside this process's own.
    """
    pipe = subprocess.PIPE if in_step else None
    limit_sec = place.order.step_timeout_sec
    started = {
        f"{stage} {' '.join(words)}".strip(): subprocess.Popen(
            [*command(stage, place), *words],
            env={**os.environ, **variables},
            stdin=pipe,
            stdout=pipe,
            start_new_session=True,
        )
        for words, variables in zip(children, told or [{}] * len(children), strict=True)
    }
    running = dict(started)
    try:
        if in_step:
            deadline = time.monotonic() + limit_sec
            for what in [what for what, child in started.items() if not _is_ready(child, deadline)]:
                kill_tree(running.pop(what))
                yield _timeout(place, stage, f"{what} was not ready to measure within {limit_sec:g} s")
            place.wait(f"{stage}: {in_step}", late_sec=_LATE_SEC)
            place.step(stage, f"{in_step} at work")
            for child in running.values():
                _let_go(child)
        deadline = time.monotonic() + limit_sec
        while any(child.poll() is None for child in running.values()) and time.monotonic() < deadline:
            time.sleep(_POLL_SEC)
        for what, child in running.items():
            if (code := child.poll()) is None:
                yield _timeout(place, stage, f"{what} did not end within {limit_sec:g} s")
            elif code not in (0, _TOLD):
                yield _failed(place, stage, what, code)
    finally:
        for child in started.values():
            if child.poll() is None:
                kill_tree(child)
            child.communicate()


def _is_ready(child: "subprocess.Popen[bytes]", deadline: float) -> bool:
    """Whether by `deadline` it waits to be let go, or has ended."""
    assert child.stdout
    return bool(select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))[0])


def _let_go(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdin
    with suppress(BrokenPipeError):
        child.stdin.write(b"\n")
        child.stdin.flush()


def _timeout(place: Place, stage: Stage, message: str) -> Trouble:
    remedy = "see the node's log in the validation's folder, and dmesg on it for a hung driver, disk or network"
    return Trouble(stage=stage, nodes=(place.node,), kind="timeout", message=message, remedy=remedy)


def _failed(place: Place, stage: Stage, what: str, code: int) -> Trouble:
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = "see whether the kernel ended it for want of memory: dmesg" if code == -signal.SIGKILL else ""
    return Trouble(stage=stage, nodes=(place.node,), kind="failed", message=f"{what} {ended}", remedy=hint)


def command(stage: Stage, place: Place) -> list[str]:
    """What starts a child, but for its own words."""
    return [sys.executable, "-m", "hpcai500.validate.agent.children", stage, str(place.folder), place.node]


def _wait_for_others() -> None:
    os.write(1, _READY)
    os.read(0, 1)


def main() -> int:
    stage, folder, node, *words = sys.argv[1:]
    place = Place(Path(folder), read_plan(Path(folder)), read_order(Path(folder)), node, None)
    module = import_module(f"hpcai500.validate.agent.stages.{stage}")
    measure: Callable[..., Iterable[Found | None]] = module.measure
    writer = "-".join([node, stage, *(word for word in words if word.isalnum())])
    try:
        for found in measure(place, *words):
            if found:
                append(place.folder, writer, [found])
            else:
                _wait_for_others()
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no reason given").splitlines()[0]
        message = f"{type(error).__name__}: {first}"
        append(
            place.folder, writer, [Trouble(stage=cast(Stage, stage), nodes=(node,), kind="failed", message=message)]
        )
        return _TOLD
    return 0


if __name__ == "__main__":
    sys.exit(main())
