"""One node's part of a validation: `python -m hpcai500.validate.agent.main FOLDER [NODE]`.

It does not import torch: whatever computes runs in child processes that it can kill.
"""

import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from hpcai500.errors import HpcAi500Error
from hpcai500.system.addresses import own_address
from hpcai500.validate.agent.meeting import LeftOutError, Meeting
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.agent.stages import collectives, health, inventory, links, micro, storage, training
from hpcai500.validate.files import (
    Observation,
    Progress,
    Stage,
    Trouble,
    append,
    read_order,
    read_plan,
    write_progress,
)

STAGES: dict[Stage, Callable[[Seat], Iterable[Observation]]] = {
    "inventory": inventory.run,
    "health": health.run,
    "micro": micro.run,
    "links": links.run,
    "collectives": collectives.run,
    "storage": storage.run,
    "training": training.run,
}


def attend(folder: Path, node: str) -> None:
    """Run the plan's stages in step with the other nodes. Whatever happens, the end is recorded."""
    write_progress(folder, node, Progress())
    plan, order = read_plan(folder), read_order(folder)
    finished: list[Stage] = []
    meeting = None
    try:
        if not order.alone:
            meeting = Meeting(order.members, node, folder, own_address(os.environ, single_node=False))
        seat = Seat(folder, plan, order, node, meeting)
        for stage in plan.stages:
            write_progress(folder, node, Progress(stage=stage, finished=tuple(finished)))
            seat.wait(f"{stage}: start")
            for found in guarded(stage, seat):  # one by one, so that a killed agent has written what it found
                append(folder, node, [found])
            finished.append(stage)
        seat.wait("end")
    except (HpcAi500Error, OSError) as error:
        if missed := plan.stages[len(finished) :]:
            kind: Literal["timeout", "failed"] = "timeout" if isinstance(error, LeftOutError) else "failed"
            append(folder, node, [Trouble(stage=missed[0], nodes=(node,), kind=kind, message=str(error))])
    write_progress(folder, node, Progress(finished=tuple(finished), ended=True))
    if meeting:
        meeting.close()


def guarded(stage: Stage, seat: Seat) -> Iterable[Observation]:
    """Observations of `stage`. If it fails, the failure is one of them, and the next stage runs all the same."""
    try:
        yield from STAGES[stage](seat)
    except LeftOutError:
        raise
    except Exception as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        yield Trouble(stage=stage, nodes=(seat.node,), kind="failed", message=message)


def main() -> int:
    node = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("SLURMD_NODENAME") or platform.node()
    attend(Path(sys.argv[1]), node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
