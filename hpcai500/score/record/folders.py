"""Finding runs below a path, in the same way for every command."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcai500.errors import InputError
from hpcai500.files import NEW

OF_A_RUN = ("run.json", "result.json")
"""A folder with one of these is a run's, complete or not."""

_BESIDE = ("checkpoint", "logs")


def run_places(folder: Path, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    """The folder of every run at or below `folder`; links are followed, and each folder is visited once.

    `unreadable` is called for each folder that cannot be listed.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        status = os.stat(place)  # noqa: PTH116 - a Path of each folder would cost more than the call
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(NEW)]
        if any(name in names for name in OF_A_RUN):
            folders[:] = [name for name in folders if name not in _BESIDE]
            yield Path(place)


def run_folders(path: Path) -> list[Path]:
    """The folders of runs at or below `path`; `path` may also be one of a run's files.

    Raises:
        InputError: for a path that does not exist, holds no run, or holds a folder that may not be read.
    """
    place = path.parent if path.is_file() else path
    if not place.is_dir():
        raise InputError("no such file or folder", "name a run's folder, or a folder of runs", at=path)

    def unreadable(error: OSError) -> None:
        hint = "what lies below it is unknown: make it readable"
        raise InputError(str(error.strerror), hint, at=Path(error.filename))

    folders = sorted(run_places(place, unreadable))
    if not folders and (place / "events.log").exists():
        return [place]
    if not folders:
        raise InputError("holds no run", "name a run's folder, or a folder of runs", at=path)
    return folders
