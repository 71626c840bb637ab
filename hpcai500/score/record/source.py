"""Paths of runs: the name that the user gave, and the place where files are read."""

from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Self

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from hpcai500.errors import HpcAi500Error
from hpcai500.text import printable

ARCHIVE_SUFFIX = ".zip"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive that the user named, unpacked while a command reads it."""

    name: Path
    """The path that the user gave."""
    folder: Path
    """The folder with its content."""
    fault: str = ""
    """The first fault, if the archive was altered and is read anyway."""


@dataclass(frozen=True)
class Source:
    """A file or folder that a command reads, on its own or in an archive."""

    on_disk: Path
    """The path to open; for an archive it is in a temporary folder, which no user should see."""
    archive: Archive | None = None

    @property
    def name(self) -> Path:
        """`set.zip/runs/...` in an archive, else the path itself."""
        if self.archive is None:
            return self.on_disk
        return self.archive.name / self.on_disk.relative_to(self.archive.folder)

    def __str__(self) -> str:
        """The name without control characters."""
        return printable(str(self.name))

    def __truediv__(self, name: str) -> Self:
        return self.at(self.on_disk / name)

    @property
    def is_altered(self) -> bool:
        return self.archive is not None and bool(self.archive.fault)

    @property
    def parent(self) -> Self:
        return self.at(self.on_disk.parent)

    def at(self, place: Path) -> Self:
        """Another path in the same archive, or in none."""
        return replace(self, on_disk=place)

    def named(self, error: HpcAi500Error) -> HpcAi500Error:
        """`error`, with the archive's name for the temporary folder."""
        if self.archive is not None:
            error.relocate(self.archive.folder, self.archive.name)
        return error


def _of_record(value: object) -> Source:
    """A Source unchanged; a name from a record as a path."""
    if isinstance(value, Source):
        return value
    if isinstance(value, str):
        return Source(Path(value))
    raise ValueError("a path must be a text")


SourceName = Annotated[
    Source,
    PlainValidator(_of_record),
    PlainSerializer(lambda value: str(value), return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A Source as a field of a record, stored by its name."""


by_name = attrgetter("name.parts")
"""The key to sort sources by."""


def source_of(path: Path | Source) -> Source:
    return path if isinstance(path, Source) else Source(path)
