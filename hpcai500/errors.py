"""The exception tree: every failure a user can meet, with its exit code.

HpcAi500Error            70  our bug, if raised itself
├── InputError            2  what the user gave is wrong
│   ├── SpecError            a key, a value or a combination of them
│   ├── DataError            a data set or a file of it
│   └── OccupiedError        a folder that already holds something else
├── MachineError          3  the machine lacks something
│   └── LibraryError         a failure of a communication library
├── ShortfallError        1  what was checked or trained fell short
│   ├── DivergedError        the loss is not finite
│   └── RankError            a rank died
└── PreemptedError       75  stopped from outside; can be resumed
"""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class HpcAi500Error(Exception):
    """What went wrong (`fault`), in which file or folder (`at`), and how to fix it (`hint`)."""

    exit_code = 70

    def __init__(self, fault: str, hint: str = "", *, at: Path | None = None, line: int | None = None) -> None:
        super().__init__(fault, hint)
        self.fault = fault
        self.hint = hint
        self.at = at
        self.line = line

    @property
    def message(self) -> str:
        """`runs/a/events.log:7: not a valid event`; only the fault if it is in no file."""
        if self.at is None:
            return self.fault
        return f"{self.at}: {self.fault}" if self.line is None else f"{self.at}:{self.line}: {self.fault}"

    def relocate(self, folder: Path, name: Path) -> None:
        """Name what is in `folder` by `name`, so that a message never shows a temporary folder."""
        if self.at is not None and self.at.is_relative_to(folder):
            self.at = name / self.at.relative_to(folder)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InputError(HpcAi500Error):
    exit_code = 2


class SpecError(InputError):
    pass


class DataError(InputError):
    pass


class OccupiedError(InputError):
    pass


class MachineError(HpcAi500Error):
    exit_code = 3


class LibraryError(MachineError):
    pass


class ShortfallError(HpcAi500Error):
    exit_code = 1


class DivergedError(ShortfallError):
    pass


class RankError(ShortfallError):
    pass


class PreemptedError(HpcAi500Error):
    exit_code = 75


def similar(wrong: str, choices: Iterable[str]) -> str | None:
    """The choice that `wrong` is probably a misspelling of; None if there is none."""
    known = sorted(choices)
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if not close:  # the last part of a dotted key may be right although its table is wrong
        leaf = wrong.rsplit(".", 1)[-1]
        close = [key for key in known if key.rsplit(".", 1)[-1] == leaf][:1]
    return close[0] if close else None


def nearest(wrong: str, choices: Iterable[str]) -> str:
    """A hint that names the choice nearest to `wrong`, or lists them all."""
    known = sorted(choices)
    close = similar(wrong, known)
    return f"did you mean {close!r}?" if close else f"choose from {', '.join(known) or 'nothing'}"


FAILURE_TOKEN = ":::HPCAI500_FAILURE"


class Failure(NamedTuple):
    """How a rank ended, as it reported to its launcher."""

    rank: int
    exit_code: int
    message: str
    hint: str
    of_library: bool = False
    """The failure of a communication library, which may only have lost a peer that died of something else."""


def format_failure(error: HpcAi500Error, rank: int) -> str:
    """The line on stderr by which a rank reports to its launcher why it ends."""
    failure = Failure(rank, error.exit_code, error.message, error.hint, isinstance(error, LibraryError))
    return f"{FAILURE_TOKEN} {json.dumps(failure._asdict())}"


def parse_failure(line: str) -> Failure | None:
    """The failure that `line` reports; None if it reports none."""
    _, token, text = line.partition(FAILURE_TOKEN)
    try:
        return Failure(**json.loads(text)) if token else None
    except (ValueError, TypeError):  # cut off when the rank died
        return None
