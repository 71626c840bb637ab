"""Archives among the paths of a command: unpacked while the command runs; altered ones are refused."""

import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpcai500.errors import HpcAi500Error, InputError
from hpcai500.score.record.folders import run_folders
from hpcai500.score.record.reading import NotRanked
from hpcai500.score.record.source import ARCHIVE_SUFFIX, Archive, Source
from hpcai500.text import one_line


@dataclass(frozen=True, kw_only=True)
class Opened:
    sources: list[Source] = field(default_factory=list)
    """The given paths; for an archive, the folder of its runs."""
    refused: list[NotRanked] = field(default_factory=list)


@contextmanager
def opened(paths: Iterable[str], *, unverified: bool = False, strict: bool = False) -> Iterator[Opened]:
    """`paths`, with archives unpacked into a temporary folder that is removed when the block ends, by SIGTERM too.

    A path may lead into an archive: `set.zip/runs/...` is one of its runs.

    An archive with faults goes into `refused`, or is raised if `strict`. `unverified` accepts altered files, but
    never forbidden names, links or sizes.

    Raises:
        ShortfallError: with the first altered file, if `strict`.
        InputError: for a file that is not an archive, if `strict`.
    """
    found = Opened()
    with _ends_in_order(), _temporary_folder() as temporary:
        for number, path in enumerate(Path(text) for text in paths):
            archive = _archive_of(path)
            if archive is None:
                found.sources.append(Source(path))
                continue
            try:
                source = _open(archive, path.relative_to(archive), temporary / str(number), unverified=unverified)
                found.sources.append(source)
            except HpcAi500Error as error:
                if strict:
                    raise
                found.refused.append(NotRanked(path=Source(path), reason=one_line(f"refused: {error.message}")))
        try:
            yield found
        except HpcAi500Error as error:
            for source in found.sources:
                source.named(error)
            raise


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hpcai500-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that clean-up runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _archive_of(path: Path) -> Path | None:
    """The archive that `path` is or leads into; None if there is none."""
    return next((at for at in (path, *path.parents) if at.suffix.lower() == ARCHIVE_SUFFIX and at.is_file()), None)


def one_run(source: Source) -> Source:
    """The folder of the only run at or below `source`, which may also be a file of the run.

    Raises:
        InputError: if there are several, or none.
    """
    path = source.on_disk
    if path.is_file():
        return source.parent
    if (path / "run.json").exists():
        return source
    folders = run_folders(path)
    if len(folders) > 1:
        hint = f"give one of them, e.g. {source.at(folders[0])}"
        raise InputError(f"{len(folders)} runs", hint, at=source.name)
    return source.at(folders[0])


def _open(archive: Path, inner: Path, folder: Path, *, unverified: bool) -> Source:
    from hpcai500.exchange.package import unpack, verify  # most commands are given no archive

    faults = verify(archive) if unverified else []
    unpack(archive, folder, unverified=unverified)
    source = Source(folder, Archive(name=archive, folder=folder, fault=faults[0] if faults else ""))
    runs = source / "runs"
    if not runs.on_disk.is_dir():
        raise InputError("holds no run", at=archive)
    if ".." in inner.parts or not (folder / inner).exists():
        example = source.at(run_folders(runs.on_disk)[0])
        raise InputError(f"no {inner} in it", f"give one of its runs, e.g. {example}", at=archive)
    return runs if inner == Path() else source.at(folder / inner)
