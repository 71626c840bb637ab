"""One node's seat in a validation: what every stage is given, and the node's progress."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import HpcAi500Error
from hpcai500.validate.agent.meeting import Meeting
from hpcai500.validate.files import Order, Plan, Progress, Stage, read_progress, write_progress

BEAT_SEC = 5.0
"""Interval between signs of life while a node waits."""


class Seat(NamedTuple):
    folder: Path
    plan: Plan
    order: Order
    node: str
    meeting: Meeting | None
    """None if the node runs by itself."""

    @property
    def members(self) -> list[str]:
        """Nodes that still take part."""
        return self.meeting.members if self.meeting else [self.node]

    @property
    def leads(self) -> bool:
        return self.members[0] == self.node

    def wait(self, name: str, word: object = None, *, late_sec: float = 0.0) -> dict[str, object]:
        """Wait for all members, showing signs of life, and return the word of each: only this node's without others.

        Members that take longer than a step's limit plus `late_sec` are left out.
        """
        if self.meeting is None:
            return {self.node: word}
        limit_sec = self.order.step_timeout_sec + late_sec
        with self._beating(limit_sec):
            return self.meeting.gather(name, word, timeout_sec=limit_sec)

    @contextmanager
    def _beating(self, limit_sec: float) -> Iterator[None]:
        """Show signs of life for up to `limit_sec`. A node that still waits then reaches nobody."""
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
        """Record the step that the node is at."""
        progress = read_progress(self.folder, self.node) or Progress()
        write_progress(self.folder, self.node, progress.model_copy(update={"stage": stage, "step": name}))
