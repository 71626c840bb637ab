"""Reading events.log: MLLOG lines as typed events. A torn last line is allowed, since a crash leaves one."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcai500.errors import InputError
from hpcai500.events.vocabulary import TOKEN, Key, Type

MOST_LOG_BYTES = 256 * 2**20
"""Limit for a whole log, including what a foreign program prints between its events."""
MOST_EVENTS = 100_000
"""Limit for the number of events. A real run has about ten per epoch, and fewer than a thousand epochs."""
MOST_EVENT_BYTES = 16 * 2**20
"""Limit for all event lines together, hundreds of times a real run's; parsed, they take up to 20x the memory."""


class Event(BaseModel):
    """One line of a log. Unknown keys are kept, as every parser of the format does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time_ms: float
    event_type: Type
    key: str
    value: Any = None
    metadata: dict[str, Any] = {}
    source: Path | None = None
    """The file that holds the line. Like `line`, it is set by the reader, whatever the line itself contains."""
    line: int | None = None


def parse_lines(lines: Iterable[str], source: Path) -> Iterator[Event]:
    """The events of `lines`; text before the token of a line is dropped.

    Raises:
        InputError: for a malformed event that is not the last line.
    """
    torn: int | None = None
    for number, line in enumerate(lines, start=1):
        position = line.find(TOKEN)
        if position < 0:
            continue
        if torn:
            raise InputError("not a valid event", "the file was altered after it was written", at=source, line=torn)
        try:
            yield event_of(json.loads(line[position + len(TOKEN) :]), source, number)
        except (ValueError, ValidationError, RecursionError):
            torn = number


def event_of(record: Any, source: Path, line: int) -> Event:
    """The event of one line's `record`.

    Raises:
        ValidationError: if it is not an event.
    """
    if isinstance(record, dict):
        record = {**record, "source": source, "line": line}
    return Event.model_validate(record)


def read_events(path: Path) -> list[Event]:
    """All whole events of a log, in order.

    Raises:
        InputError: for a log that cannot be read, is too large, or was altered.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError("not a regular file", at=path)
        with path.open("rb") as file:
            return parse_log(file, path)
    except OSError as error:
        raise InputError(str(error.strerror), at=path) from error


def parse_log(file: IO[bytes], path: Path) -> list[Event]:
    """All whole events of an open log, in order; errors name `path`.

    Raises:
        InputError: for a log that is larger than a log may be, or was altered; OSError.
    """
    return list(parse_lines(_bounded(file, path), path))


def run_start_ms(file: IO[bytes], path: Path) -> float:
    """Start of the run of an open log, in ms since 1970; infinity if the log lacks it or is broken."""
    try:
        start = first(parse_lines(_bounded(file, path), path), Key.RUN_START)
    except (OSError, InputError, RecursionError):
        return math.inf
    return start.time_ms if start and math.isfinite(start.time_ms) else math.inf


def _bounded(file: IO[bytes], path: Path) -> Iterator[str]:
    """The lines of a log; an error once they exceed a limit."""
    num_bytes = num_events = event_bytes = 0
    while line := file.readline(MOST_EVENT_BYTES + 1):
        num_bytes += len(line)
        if TOKEN.encode() in line:
            num_events += 1
            event_bytes += len(line)
        for number, most, what in (
            (num_bytes, MOST_LOG_BYTES, "bytes"), (num_events, MOST_EVENTS, "events"),
            (max(event_bytes, len(line)), MOST_EVENT_BYTES, "bytes of events"),
        ):  # fmt: skip
            if number > most:
                fault = f"more than {most:,} {what}: too large for the log of a run"
                raise InputError(fault, "log epochs, not steps", at=path)
        yield line.decode(errors="replace")


def find(events: Iterable[Event], key: Key) -> list[Event]:
    return [event for event in events if event.key == key]


def first(events: Iterable[Event], key: Key) -> Event | None:
    return next((event for event in events if event.key == key), None)
