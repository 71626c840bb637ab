"""One node's part of a validation: `python -m hpcai500.validate.agent.main FOLDER [NODE]`.

It needs no torch of its own: what computes runs in processes that it can end.
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
from hpcai500.validate.agent.seat import Found, Place
from hpcai500.validate.agent.stages import collectives, health, inventory, links, micro, storage, training
from hpcai500.validate.files import Progress, Stage, Trouble, append, read_order, read_plan, write_progress

STAGES: dict[Stage, Callable[[Place], Iterable[Found]]] = {
    "inventory": inventory.run,
    "health": health.run,
    "micro": micro.run,
    "links": links.run,
    "collectives": collectives.run,
    "storage": storage.run,
    "training": training.run,
}


def attend(folder: Path, node: str) -> None:
    """Go through the plan's stages, side by side with the other nodes; whatever happens, the end is written down."""
    write_progress(folder, node, Progress())
    plan, order = read_plan(folder), read_order(folder)
    finished: list[Stage] = []
    meeting = None
    try:
        if not order.alone:
            meeting = Meeting(order.members, node, folder, own_address(os.environ, single_node=False))
        place = Place(folder, plan, order, node, meeting)
        for stage in plan.stages:
            write_progress(folder, node, Progress(stage=stage, finished=tuple(finished)))
            place.wait(f"{stage}: start")
            for found in guarded(stage, place):  # one by one: whoever is killed has told what it knew
                append(folder, node, [found])
            finished.append(stage)
        place.wait("end")
    except (HpcAi500Error, OSError) as error:
        if missed := plan.stages[len(finished) :]:
            kind: Literal["timeout", "failed"] = "timeout" if isinstance(error, LeftOutError) else "failed"
            append(folder, node, [Trouble(stage=missed[0], nodes=(node,), kind=kind, message=str(error))])
    write_progress(folder, node, Progress(finished=tuple(finished), ended=True))
    if meeting:
        meeting.close()


def guarded(stage: Stage, place: Place) -> Iterable[Found]:
    """What `stage` finds; one that breaks is a finding of its own, and the next one follows all the same."""
    try:
        yield from STAGES[stage](place)
    except LeftOutError:
        raise
    except Exception as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        yield Trouble(stage=stage, nodes=(place.node,), kind="failed", message=message)


def main() -> int:
    node = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("SLURMD_NODENAME") or platform.node()
    attend(Path(sys.argv[1]), node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
