"""The three levels: which settings a run may change and still be compared."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

from hpcai500.errors import SpecError
from hpcai500.spec.layers import layer_of


class Level(StrEnum):
    """From the strictest to the most open; HPC AI500 V2.0."""

    HARDWARE = "hardware"
    SYSTEM = "system"
    FREE = "free"

    @property
    def division(self) -> str:
        """The word of MLPerf's rules that comes nearest."""
        return "open" if self is Level.FREE else "closed"


ALWAYS_OPEN = ("execution.*",)  # Layers 4 and 6: precision, compilation, threads
"""How a run executes may differ at every level; the precision is a column of every ranking."""


def opens(patterns: Sequence[str], key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in (*ALWAYS_OPEN, *patterns))


def require_open(level: Level, keys: Sequence[str], openings: Mapping[Level, Sequence[str]]) -> None:
    """Refuse the first of `keys` that `level` fixes, and name the level that opens it."""
    for key in keys:
        if opens(openings[level], key):
            continue
        layer = layer_of(key)
        raise SpecError(
            f"{key} belongs to Layer {layer.value} ({layer.title}), fixed at {level} level",
            opening_hint(key, openings),
        )


def opening_hint(key: str, openings: Mapping[Level, Sequence[str]]) -> str:
    """How to run with a value of `key` that a level fixes."""
    allowing = next((level for level in Level if opens(openings[level], key)), None)
    if allowing:
        return f"--level {allowing} allows it"
    return "no level opens it; --unranked runs it as a trial that is never ranked"
