"""Appending MLLOG lines so that a SIGKILL loses nothing written before it."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcai500.events.typed import Payload
from hpcai500.events.vocabulary import TOKEN, Key, Type
from hpcai500.files import storage


def format_line(
    key: Key,
    event_type: Type,
    value: Any,
    metadata: Mapping[str, Any],
    *,
    time_ms: int,
    file: str,
    lineno: int,
) -> str:
    """One event as a line, without the line break."""
    record = {
        "namespace": "",
        "time_ms": time_ms,
        "event_type": event_type.value,
        "key": key.value,
        "value": value,
        "metadata": {"file": file, "lineno": lineno, **metadata},
    }
    return f"{TOKEN} {json.dumps(record, allow_nan=False)}"


class EventWriter:
    """The only writer of a run's events.log. Each event is one `write` to a file opened for appending.

    A torn last line, which a crash can leave, is cut off first.

    Raises:
        HpcAi500Error: if the file system refuses (disk full, permission denied).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            content = path.read_bytes()
            os.ftruncate(self._fd, content.rfind(b"\n") + 1)

    def log(self, payload: Payload) -> None:
        """Write one event with the current time."""
        caller = sys._getframe(1)
        value, metadata = payload.written()
        line = format_line(
            payload.key,
            payload.event_type,
            value,
            metadata,
            time_ms=time.time_ns() // 1_000_000,
            file=Path(caller.f_code.co_filename).name,
            lineno=caller.f_lineno,
        )
        remaining = f"{line}\n".encode()
        with storage(self._path):
            while remaining:
                remaining = remaining[os.write(self._fd, remaining) :]

    def sync(self) -> int:
        """Make the lines so far survive a power cut too; return their length in bytes."""
        with storage(self._path):
            os.fsync(self._fd)
            return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)
