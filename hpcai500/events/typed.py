"""Typed events: the base class of all payloads, and the functions that read a line as one."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcai500.errors import InputError
from hpcai500.events.reader import Event
from hpcai500.events.vocabulary import Key, Type
from hpcai500.spec.models import Frozen
from hpcai500.text import printable

_LONGEST = 80
"""Letters of a wrong value, or of its key, that one line shows."""


class Lenient(Frozen):
    """A record whose unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class Payload(Lenient):
    """`value` and `metadata` of an event. Each key has a subclass that gives them types."""

    key: ClassVar[Key]
    event_type: ClassVar[Type] = Type.POINT

    value: Any = None
    metadata: Any = None

    def written(self) -> tuple[Any, dict[str, Any]]:
        """Value and metadata as the line contains them: only what was given, without defaults."""
        record = self.model_dump(exclude_unset=True)
        return record.get("value"), record.get("metadata") or {}


P = TypeVar("P", bound=Payload)
Model = TypeVar("Model", bound=BaseModel)


def parsed(event: Event, kind: type[P]) -> P:
    """`event` as a `kind`.

    Raises:
        InputError: naming file, line and key, and what is missing or wrong.
    """
    record = {"value": event.value, "metadata": event.metadata}
    return checked_record(kind, record, event.key, at=event.source, line=event.line)


def payloads(events: Iterable[Event], kind: type[P]) -> list[P]:
    """All events of the key of `kind`, in order.

    Raises:
        InputError: as `parsed` does.
    """
    return [parsed(event, kind) for event in events if event.key == kind.key]


def payload(events: Iterable[Event], kind: type[P]) -> P | None:
    """The first event of the key of `kind`; None if there is none.

    Raises:
        InputError: as `parsed` does.
    """
    return next((parsed(event, kind) for event in events if event.key == kind.key), None)


def checked_record(
    model: type[Model], record: dict[str, Any], what: str, *, at: Path | None, line: int | None = None
) -> Model:
    """`record`, which consists of JSON values and may be hostile, as a `model`.

    Raises:
        InputError: in one printable line with the file `at`, its line, and `what` the record is.
    """
    try:
        return model.model_validate_json(json.dumps(record))
    except ValidationError as error:
        fault, hint = _fault(error)
        raise InputError(f"{what}{fault}", hint, at=at, line=line) from error


def _fault(error: ValidationError) -> tuple[str, str]:
    """What is wrong, as text to follow the record's name, and how to fix it."""
    found = error.errors()
    if missing := [_key_of(one["loc"]) for one in found if one["type"] == "missing"]:
        return f" lacks {', '.join(missing)}", "state it"
    first = found[0]
    key = _key_of(first["loc"])
    if first["type"] == "extra_forbidden":
        return f": {key}: no such key", ""
    text = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], dict) else f", not {printable(repr(first['input'])[:_LONGEST])}"
    return f": {key}{': ' if key else ''}{text[0].lower()}{text[1:]}{shown}", ""


def _key_of(location: tuple[int | str, ...]) -> str:
    return printable(".".join(str(part) for part in location)[:_LONGEST])
