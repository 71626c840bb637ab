"""One node's place in a validation: what every stage is given, and how far the node has come."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import HpcAi500Error
from hpcai500.validate.agent.meeting import Meeting
from hpcai500.validate.files import Measurement, Order, Plan, Progress, Stage, Trouble, read_progress, write_progress

BEAT_SEC = 5.0
"""Between two signs of life of a node that waits."""

Found = Measurement | Trouble


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
