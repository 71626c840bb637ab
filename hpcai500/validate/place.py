"""One node's place in a validation: what every stage is given, and how far the node has come."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import HpcAi500Error
from hpcai500.files import read_json, write_atomic
from hpcai500.spec.models import Frozen, parse
from hpcai500.validate.measurement import PLAN, Measurement, Plan, Stage, Trouble
from hpcai500.validate.meeting import Meeting

ORDER = "order.json"
PROGRESS = "progress"
BEAT_SEC = 5.0
"""Between two signs of life of a node that waits."""

Found = Measurement | Trouble


class Order(Frozen):
    """`order.json`: what the agents of a job must know beside the plan."""

    members: tuple[str, ...]
    """The nodes that can be reached, in the order in which they take the lead."""
    alone: bool = False
    """Each node runs by itself: no stage may wait for another one."""
    step_timeout_sec: float
    """How long one node may take over one step before the others go on without it."""


class Progress(Frozen):
    """`progress/NODE`: where a node's agent stands."""

    stage: Stage | None = None
    step: str = ""
    finished: tuple[Stage, ...] = ()
    ended: bool = False
    """The agent has nothing more to do."""
    num_beats: int = 0
    """Signs of life while it waited for others."""


class Place(NamedTuple):
    folder: Path
    plan: Plan
    order: Order
    node: str
    meeting: Meeting | None
    """None where the node runs by itself."""

    @property
    def members(self) -> list[str]:
        """The nodes that are still there."""
        return self.meeting.members if self.meeting else [self.node]

    @property
    def leads(self) -> bool:
        return self.members[0] == self.node

    def wait(self, name: str, word: object = None, *, late_sec: float = 0.0) -> dict[str, object]:
        """The word of each member at this point; alone, one's own. Meanwhile the node shows that it lives.

        The others are given a step's limit, and `late_sec` more.
        """
        if self.meeting is None:
            return {self.node: word}
        limit_sec = self.order.step_timeout_sec + late_sec
        with self._beating(limit_sec):
            return self.meeting.gather(name, word, timeout_sec=limit_sec)

    @contextmanager
    def _beating(self, limit_sec: float) -> Iterator[None]:
        """For `limit_sec` at most: who then still waits reaches nobody, and is to be given up."""
        is_over = threading.Event()
        deadline = time.monotonic() + limit_sec

        def beat() -> None:
            while not is_over.wait(BEAT_SEC) and time.monotonic() < deadline:
                with suppress(HpcAi500Error, OSError):
                    progress = read_progress(self.folder, self.node) or Progress()
                    beats = progress.num_beats + 1
                    write_progress(self.folder, self.node, progress.model_copy(update={"num_beats": beats}))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def step(self, stage: Stage, name: str) -> None:
        """Show that the node goes on."""
        progress = read_progress(self.folder, self.node) or Progress()
        write_progress(self.folder, self.node, progress.model_copy(update={"stage": stage, "step": name}))


def read_plan(folder: Path) -> Plan:
    return parse(Plan, read_json(folder / PLAN), folder / PLAN)


def read_order(folder: Path) -> Order:
    return parse(Order, read_json(folder / ORDER), folder / ORDER)


def read_progress(folder: Path, node: str) -> Progress | None:
    """None where the node has not begun."""
    path = folder / PROGRESS / node
    return parse(Progress, read_json(path), path) if path.exists() else None


def write_progress(folder: Path, node: str, progress: Progress) -> None:
    write_atomic(folder / PROGRESS / node, progress.model_dump_json() + "\n")
