"""Reading events.log: MLLOG lines as typed events; a torn last line is what a crash leaves."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcai500.errors import InputError
from hpcai500.events.vocabulary import TOKEN, Key, Type

MOST_LOG_BYTES = 256 * 2**20
"""Of a whole log, with what a foreign program prints between its events."""
MOST_EVENTS = 100_000
"""A real run has about ten an epoch, and fewer than a thousand epochs."""
MOST_EVENT_BYTES = 16 * 2**20
"""Of all lines with events, hundreds of times a real run's: read, they may take twenty times the memory."""


class Event(BaseModel):
    """One line; keys that are not ours to know are kept, as any parser of the format does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time_ms: float
    event_type: Type
    key: str
    value: Any = None
    metadata: dict[str, Any] = {}
    source: Path | None = None
    """The file that the line stands in; like `line`, never what the line itself says of it."""
    line: int | None = None


def parse_lines(lines: Iterable[str], source: Path) -> Iterator[Event]:
    """The events of `lines`; whatever stands before the token of a line is dropped.

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
        ValidationError: if it is none.
    """
    if isinstance(record, dict):
        record = {**record, "source": source, "line": line}
    return Event.model_validate(record)


def read_events(path: Path) -> list[Event]:
    """All whole events of a log, in order.

    Raises:
        InputError: for a log that cannot be read, is larger than a log may be, or was altered.
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
    """Start of the run of an open log, in ms since 1970; infinity if the log does not say it or is broken."""
    try:
        start = first(parse_lines(_bounded(file, path), path), Key.RUN_START)
    except (OSError, InputError, RecursionError):
        return math.inf
    return start.time_ms if start and math.isfinite(start.time_ms) else math.inf


def _bounded(file: IO[bytes], path: Path) -> Iterator[str]:
    """The lines of a log, as long as there are no more than a log may have."""
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
                fault = f"more than {most:,} {what} are no log of a run"
                raise InputError(fault, "log epochs, not steps", at=path)
        yield line.decode(errors="replace")


def find(events: Iterable[Event], key: Key) -> list[Event]:
    return [event for event in events if event.key == key]


def first(events: Iterable[Event], key: Key) -> Event | None:
    return next((event for event in events if event.key == key), None)
