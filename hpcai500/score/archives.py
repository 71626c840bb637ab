"""Archives among the paths of a command: unpacked for as long as it looks at them, altered ones refused."""

import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpcai500.errors import HpcAi500Error, InputError
from hpcai500.score.collection import LeftOut, one_line
from hpcai500.score.folders import run_folders
from hpcai500.score.package import SUFFIX, unpack, verify
from hpcai500.score.ranking import Entry, RankedList


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
    """`paths` with archives unpacked into a folder that goes when the block ends, by SIGTERM too.

    A path may lead into an archive: `set.zip/runs/...` is one of its runs.

    What `verify` finds fault with is put into `refused`, and raised where `strict`; `unverified` takes what was
    altered, but never what no archive may hold.

    Raises:
        ShortfallError: naming the first altered file; InputError for what is no archive: both only if `strict`.
    """
    found = Opened(paths=[])
    with _ends_in_order(), _temporary_folder() as place:
        for number, path in enumerate(Path(text) for text in paths):
            archive = _archive_of(path)
            if archive is None:
                found.paths.append(path)
                continue
            try:
                _open(archive, path.relative_to(archive), place / str(number), found, unverified=unverified)
            except HpcAi500Error as error:
                if strict:
                    raise
                found.refused.append(LeftOut(str(path), one_line(f"refused: {error.message}")))
        try:
            yield found
        except HpcAi500Error as error:
            error.message, error.hint = found.label(error.message), found.label(error.hint)
            raise


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="hpcai500-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """SIGTERM as an exception, so that what must be done at the end is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _archive_of(path: Path) -> Path | None:
    """The archive that `path` is, or leads into."""
    return next(
        (place for place in (path, *path.parents) if place.suffix.lower() == SUFFIX and place.is_file()), None
    )


def one_run(path: Path) -> Path:
    """The folder of the one run that is at or below `path`, which may also be one of its files.

    Raises:
        InputError: if there are several, or none.
    """
    if path.is_file() or (path / "run.json").exists():
        return path.parent if path.is_file() else path
    folders = run_folders(path)
    if len(folders) > 1:
        raise InputError(f"{path}: {len(folders)} runs", f"name one of them, e.g. {folders[0]}")
    return folders[0]


def _open(archive: Path, inner: Path, folder: Path, found: Opened, *, unverified: bool) -> None:
    faults = verify(archive) if unverified else []
    unpack(archive, folder, unverified=unverified)
    runs = folder / "runs"
    if not runs.is_dir():
        raise InputError(f"{archive}: holds no run")
    if ".." in inner.parts or not (folder / inner).exists():
        raise InputError(f"{archive}: no {inner} in it", f"name one of its runs, e.g. {archive}/{_example(folder)}")
    found.paths.append(runs if inner == Path() else folder / inner)
    found.labels[str(folder)] = re.sub(r"[^\w./+=@:-]", "?", str(archive), flags=re.ASCII)
    if faults:
        found.altered[str(folder)] = faults[0]


def _example(folder: Path) -> Path:
    return run_folders(folder / "runs")[0].relative_to(folder)
