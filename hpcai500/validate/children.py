"""Processes that measure for an agent: what hangs or crashes in one ends with it, and is named.

`python -m hpcai500.validate.children STAGE FOLDER NODE [WORD…]` writes its own file of measurements.
"""

import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import cast

from hpcai500.launch.local import kill_tree
from hpcai500.validate.measurement import Stage, Trouble, append
from hpcai500.validate.place import Found, Place, read_order, read_plan

_POLL_SEC = 0.05
_READY = b"ready\n"
_TOLD = 4
"""Exit code of a child that has written its own trouble."""


def run_children(
    place: Place, stage: Stage, children: Sequence[Sequence[str]], *, in_step: str = ""
) -> Iterator[Found]:
    """Start one child for each list of words, and wait for all: what became of those that did not end well.

    With `in_step`, a name for the moment, the `measure` of each yields None when it has imported what it needs, and
    goes on when those of all nodes have.
    """
    pipe = subprocess.PIPE if in_step else None
    limit_sec = place.order.step_timeout_sec
    started = [
        subprocess.Popen([*command(stage, place), *words], stdin=pipe, stdout=pipe, start_new_session=True)
        for words in children
    ]
    deadline = time.monotonic() + limit_sec
    try:
        if in_step:
            for child in started:
                _wait_until_ready(child, deadline)
            place.wait(f"{stage}: {in_step}")
            for child in started:
                _let_go(child)
        while any(child.poll() is None for child in started) and time.monotonic() < deadline:
            time.sleep(_POLL_SEC)
        for child, words in zip(started, children, strict=True):
            yield from _fate(place, stage, " ".join(words), child.poll(), limit_sec)
    finally:
        for child in started:
            if child.poll() is None:
                kill_tree(child)
            child.communicate()


def _wait_until_ready(child: "subprocess.Popen[bytes]", deadline: float) -> None:
    """Until it waits to be let go, or has ended."""
    assert child.stdout
    select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))


def _let_go(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdin
    with suppress(BrokenPipeError):
        child.stdin.write(b"\n")
        child.stdin.flush()


def _fate(place: Place, stage: Stage, words: str, code: int | None, limit_sec: float) -> Iterator[Found]:
    what = f"{stage} {words}".strip()
    if code is None:
        message = f"{what} did not end within {limit_sec:g} s"
        yield Trouble(stage=stage, nodes=(place.node,), kind="timeout", message=message)
    elif code not in (0, _TOLD):
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = "see whether the kernel ended it for want of memory: dmesg" if code == -signal.SIGKILL else ""
        yield Trouble(stage=stage, nodes=(place.node,), kind="failed", message=f"{what} {ended}", remedy=hint)


def command(stage: Stage, place: Place) -> list[str]:
    """What starts a child, but for its own words."""
    return [sys.executable, "-m", "hpcai500.validate.children", stage, str(place.folder), place.node]


def _wait_for_others() -> None:
    os.write(1, _READY)
    os.read(0, 1)


def main() -> int:
    stage, folder, node, *words = sys.argv[1:]
    place = Place(Path(folder), read_plan(Path(folder)), read_order(Path(folder)), node, None)
    module = import_module(f"hpcai500.validate.stages.{stage}")
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
