"""Reading events.log: MLLOG lines as typed events; a torn last line is what a crash leaves."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcai500.errors import InputError
from hpcai500.events.vocabulary import Key, Type
from hpcai500.events.writer import TOKEN


class Event(BaseModel):
    """One line; keys that are not ours to know are kept, as any parser of the format does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time_ms: float
    event_type: Type
    key: str
    value: Any = None
    metadata: dict[str, Any] = {}


def parse_lines(lines: Iterable[str], source: str) -> Iterator[Event]:
    """The events of `lines`; whatever stands before the token of a line is dropped.

    Raises:
        InputError: for a malformed event that is not the last line.
    """
    torn: str | None = None
    for number, line in enumerate(lines, start=1):
        position = line.find(TOKEN)
        if position < 0:
            continue
        if torn:
            raise InputError(torn, "the file was altered after it was written")
        try:
            yield Event.model_validate(json.loads(line[position + len(TOKEN) :]))
        except (ValueError, ValidationError):
            torn = f"{source}:{number}: not a valid event"


def read_events(path: Path) -> list[Event]:
    """All whole events of a log, in order."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return list(parse_lines(file, str(path)))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def find(events: Iterable[Event], key: Key) -> list[Event]:
    return [event for event in events if event.key == key]


def first(events: Iterable[Event], key: Key) -> Event | None:
    return next((event for event in events if event.key == key), None)
