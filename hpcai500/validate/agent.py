"""One node's part of a validation: `python -m hpcai500.validate.agent FOLDER [NODE]`.

It needs no torch of its own: what computes runs in processes that it can end.
"""

import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from hpcai500.system.addresses import own_address
from hpcai500.validate.measurement import Stage, Trouble, append
from hpcai500.validate.meeting import LeftOutError, Meeting
from hpcai500.validate.place import Found, Place, Progress, read_order, read_plan, write_progress
from hpcai500.validate.stages import collectives, health, inventory, links, micro, storage, training

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
    """Go through the plan's stages, side by side with the other nodes."""
    plan, order = read_plan(folder), read_order(folder)
    meeting = None
    progress = Progress()
    write_progress(folder, node, progress)
    if not order.alone and len(order.members) > 1:
        meeting = Meeting(order.members, node, folder, own_address(os.environ, single_node=False))
    place = Place(folder, plan, order, node, meeting)
    try:
        for stage in plan.stages:
            write_progress(folder, node, progress.model_copy(update={"stage": stage}))
            place.wait(f"{stage}: start")
            for found in guarded(stage, place):  # one by one: whoever is killed has told what it knew
                append(folder, node, [found])
            progress = Progress(finished=(*progress.finished, stage))
        place.wait("end")
    except LeftOutError as error:
        append(folder, node, [_trouble(plan.stages[len(progress.finished)], node, "timeout", str(error))])
    write_progress(folder, node, progress.model_copy(update={"ended": True}))
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
        yield _trouble(stage, place.node, "failed", f"{type(error).__name__}: {error}")


def _trouble(stage: Stage, node: str, kind: str, message: str) -> Trouble:
    return Trouble.model_validate({"stage": stage, "nodes": (node,), "kind": kind, "message": message})


def main() -> int:
    node = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("SLURMD_NODENAME") or platform.node()
    attend(Path(sys.argv[1]), node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
