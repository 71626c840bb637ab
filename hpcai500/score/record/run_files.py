"""The files of one run, which somebody else may have written: each is checked, and opened once."""

import hashlib
import io
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpcai500.errors import InputError
from hpcai500.events.reader import MOST_LOG_BYTES, Event, parse_log
from hpcai500.files import read_plain, storage
from hpcai500.score.record.limits import MOST_KEPT_BYTES, MOST_RECORD_BYTES
from hpcai500.score.record.source import Source
from hpcai500.spec.run import AnyRun, run_of

RUN, LOG, SYSTEM, RESULT = "run.json", "events.log", "system.json", "result.json"
MANIFEST = "manifest.json"
SEALED = (RUN, LOG, SYSTEM, "evaluation.json", "timing.json")
"""Files that a manifest names: result.json follows from them, and a later version may derive it again."""
RUN_FILES = (RESULT, MANIFEST, *SEALED)


class RunFiles:
    """The files in a run's folder. A file of up to 1 MiB is kept once read, so that no reader opens it again."""

    def __init__(self, folder: Path | Source, *, result: str = RESULT) -> None:
        self.source = folder if isinstance(folder, Source) else Source(folder)
        self.result_name = result
        """Name of the file with the result: `rank` takes one by any name."""
        self._kept: dict[str, bytes] = {}

    @property
    def folder(self) -> Path:
        return self.source.on_disk

    def path(self, name: str) -> Path:
        return self.folder / name

    def exists(self, name: str) -> bool:
        return name in self._kept or self.path(name).exists()

    def forget(self) -> None:
        """Free the memory: what is needed again is read again."""
        self._kept.clear()

    def content(self, name: str, most: int = MOST_RECORD_BYTES) -> bytes:
        """The bytes of the file `name`.

        Raises:
            InputError: if it is not a regular file, or has more than `most` bytes; OSError.
        """
        if (kept := self._kept.get(name)) is not None:
            return kept
        content = read_plain(self.path(name), most)
        if len(content) <= MOST_KEPT_BYTES:
            self._kept[name] = content
        return content

    def record(self, name: str) -> Any:
        """The JSON value in the file `name`.

        Raises:
            InputError: if the file cannot be read, or is not JSON.
        """
        path = self.path(name)
        try:
            return json.loads(self.content(name).decode())
        except OSError as error:
            raise InputError(str(error.strerror), at=path) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"not valid JSON ({error})", at=path) from error

    def run(self) -> AnyRun:
        """The run as it was asked for, from run.json."""
        return run_of(self.record(RUN), self.path(RUN))

    def events(self) -> list[Event]:
        """All whole events of the log, in order.

        Raises:
            InputError: for a log that cannot be read, is larger than a log may be, or was altered.
        """
        path = self.path(LOG)
        try:
            with self.opened(LOG) as file:
                return parse_log(file, path)
        except OSError as error:
            raise InputError(str(error.strerror), at=path) from error

    def opened(self, name: str) -> io.BytesIO | io.BufferedReader:
        """The file `name`, to read from its start; a large one is streamed.

        Raises:
            InputError: if it is not a regular file; OSError.
        """
        if name not in self._kept:
            found = self.path(name).stat()
            if not stat.S_ISREG(found.st_mode):
                raise InputError("not a regular file", at=self.path(name))
            if found.st_size > MOST_KEPT_BYTES:
                return self.path(name).open("rb")
        return io.BytesIO(self.content(name, MOST_LOG_BYTES))

    def sha256(self, name: str) -> str:
        """SHA-256 of the file `name`, in hex."""
        with storage(self.path(name)), self.opened(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def require_regular(self) -> None:
        """Refuse files that would hang their reader or fill the memory.

        Raises:
            InputError: for a pipe, a device, or a file larger than a record may be.
        """
        for name in self._present():
            try:
                found = os.stat(f"{self.folder}/{name}")  # noqa: PTH116 - a Path per file would cost more than the call
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{name}: not a regular file")
            if found.st_size > (MOST_LOG_BYTES if name == LOG else MOST_RECORD_BYTES):
                raise InputError(f"{name}: {found.st_size:,} bytes, too large for a record of a run")

    def _present(self) -> Iterable[str]:
        """Names of the run's files that are there."""
        try:
            return set(RUN_FILES).intersection(os.listdir(self.folder))
        except FileNotFoundError:
            return ()
        except PermissionError:  # its files may be readable all the same
            return RUN_FILES


def files_of(folder: Path | Source | RunFiles) -> RunFiles:
    return folder if isinstance(folder, RunFiles) else RunFiles(folder)
