"""The base of every specification model, and validation errors as one line."""

import json
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from hpcai500.errors import SpecError, nearest

_LONGEST_GIVEN = 100
"""Letters of a wrong value that a message shows."""


class Frozen(BaseModel):
    """Keyword-only, immutable, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    @field_validator("schema_version", mode="before", check_fields=False)
    @classmethod
    def _version_is_a_number(cls, value: Any) -> Any:
        if type(value) is not int:  # true equals 1
            raise ValueError("a schema version is a whole number")
        return value


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], value: Any, source: str | Path, part: str = "", *, line: int | None = None) -> Model:
    """`value`, which consists of JSON values, as a `model`.

    The error names `source`, a file or an option, and the `part` or the line of a file that `value` was read from.

    Raises:
        SpecError: for an unknown key (the nearest right one is named), a wrong type or value.
    """
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        at = source if isinstance(source, Path) else None
        named = part if at else source
        where = f"{named}: " if named else ""
        if (version := _newer_version(model, value)) is not None:
            newer = f"{where}schema version {version}, newer than this hpcai500 reads"
            raise SpecError(newer, "update it", at=at, line=line) from None
        # A misspelt key is both unknown and missing: the unknown one is more helpful.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            fields = _fields_at(model, first["loc"][:-1])
            hint = nearest(str(first["loc"][-1]), fields)
            raise SpecError(f"{where}unknown key {key!r}", hint, at=at, line=line) from error
        if first["type"] == "missing":
            raise SpecError(f"{where}key {key!r} is missing", "add it", at=at, line=line) from error
        given = repr(first["input"])
        given = given if len(given) <= _LONGEST_GIVEN else f"{given[:_LONGEST_GIVEN]}..."
        shown = "" if isinstance(first["input"], dict) else f", not {given}"
        message = first["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        raise SpecError(f"{where}{f'{key}: ' if key else ''}{message}{shown}", at=at, line=line) from error


def _newer_version(model: type[BaseModel], value: Any) -> int | None:
    """The schema version of `value`, if it is newer than every one that `model` knows."""
    field = model.model_fields.get("schema_version")
    known = get_args(field.annotation) if field else ()
    version = value.get("schema_version") if isinstance(value, dict) else None
    return version if known and type(version) is int and version > max(known) else None


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys of the model at `location` inside `model`; empty if there is no model."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:  # an item of a list or a dictionary
            current = [kind for kind in get_args(current) if kind is not Ellipsis][-1]
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []
