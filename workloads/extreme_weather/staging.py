"""Copies of a data set on a disk of the node."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hpcai500.files import digest, storage

from .layout import Manifest
from .storage import readable


def staged_folder(manifest: Manifest, staging: Path) -> Path:
    """The data set's own folder below `staging`, named for its files' digests."""
    return staging / digest([entry.sha256 for entry in manifest.files])[:16]


def stage(folder: Path, manifest: Manifest, years: Sequence[int], staging: Path) -> None:
    """Copy the files of `years` into the data set's `staged_folder`.

    Files copied before stay, so that an interrupted copy continues. One process per node calls this.

    Raises:
        DataError: naming a file that cannot be read.
        MachineError: if the disk is full.
    """
    target = staged_folder(manifest, staging)
    with storage(target):
        target.mkdir(parents=True, exist_ok=True)
    for entry in manifest.files:
        if entry.year in years:
            _copy(folder / entry.name, target / entry.name)


def _copy(source: Path, target: Path) -> None:
    with readable(source):
        size = source.stat().st_size
    if target.is_file() and target.stat().st_size == size:
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with storage(target):
            shutil.copyfile(source, temporary)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
