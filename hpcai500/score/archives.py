"""Archives among the paths of a command: unpacked for as long as it looks at them, altered ones refused."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpcai500.errors import HpcAi500Error, InputError
from hpcai500.score.collection import LeftOut, one_line
from hpcai500.score.package import unpack, verify
from hpcai500.score.ranking import Entry, RankedList

SUFFIX = ".zip"


@dataclass(frozen=True, kw_only=True)
class Opened:
    paths: list[Path]
    """As they were given, each archive replaced by the folder of its runs."""
    refused: list[LeftOut] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    """Folder to what it is called: the archive's own path, without what a page or a terminal would act on."""
    altered: dict[str, str] = field(default_factory=dict)
    """Folder of an archive that was taken unverified, and its first fault."""

    def label(self, text: str) -> str:
        """`text`, in whatever format, with the archives' names for the folders they lie in."""
        for folder, name in self.labels.items():
            text = text.replace(folder, name).replace(folder.replace("_", "\\_"), name)
        return text

    def fault_of(self, path: str) -> str | None:
        """Why the archive that holds `path` was altered; None where nothing says so."""
        return next((fault for folder, fault in self.altered.items() if path.startswith(folder)), None)

    def mark(self, lists: Iterable[RankedList]) -> list[RankedList]:
        """The same lists, each entry with a run out of an altered archive marked as unverified."""
        return [ranked.model_copy(update={"entries": self.mark_entries(ranked.entries)}) for ranked in lists]

    def mark_entries(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        return tuple(
            entry.model_copy(update={"unverified": True})
            if any(self.fault_of(run.path) for run in entry.runs)
            else entry
            for entry in entries
        )


@contextmanager
def opened(paths: Iterable[str], *, unverified: bool = False, strict: bool = False) -> Iterator[Opened]:
    """`paths` with archives unpacked into a folder that goes when the block ends.

    What `verify` finds fault with is put into `refused`, and raised where `strict`; `unverified` takes what was
    altered, but never what no archive may hold.

    Raises:
        ShortfallError: naming the first altered file; InputError for what is no archive: both only if `strict`.
    """
    found = Opened(paths=[])
    place = Path(tempfile.mkdtemp(prefix="hpcai500-"))
    try:
        for number, path in enumerate(Path(text) for text in paths):
            if path.suffix.lower() != SUFFIX or path.is_dir() or not path.exists():
                found.paths.append(path)
                continue
            try:
                _open(path, place / str(number), found, unverified=unverified)
            except HpcAi500Error as error:
                if strict:
                    raise
                found.refused.append(LeftOut(str(path), one_line(f"refused: {error.message}")))
        try:
            yield found
        except HpcAi500Error as error:
            error.message, error.hint = found.label(error.message), found.label(error.hint)
            raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _open(archive: Path, folder: Path, found: Opened, *, unverified: bool) -> None:
    faults = verify(archive) if unverified else []
    unpack(archive, folder, unverified=unverified)
    runs = folder / "runs"
    if not runs.is_dir():
        raise InputError(f"{archive}: holds no run")
    found.paths.append(runs)
    found.labels[str(folder)] = re.sub(r"[^\w./+=@:-]", "?", str(archive), flags=re.ASCII)
    if faults:
        found.altered[str(folder)] = faults[0]
