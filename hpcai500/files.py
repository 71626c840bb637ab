"""Finding packaged data, writing files whole or not at all, and digests."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hpcai500.errors import HpcAi500Error, InputError, MachineError

_PACKAGE = Path(__file__).resolve().parent


NEW = ".new-"
"""The start of the name of a folder that is still being filled. None of its files counts yet."""

_MOST_JSON_BYTES = 256 * 2**20


def data_dir(name: str) -> Path:
    """The folder `name`, e.g. "workloads", of the wheel or of an editable checkout."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text`. A reader sees either the old file or the new one, even after a crash."""
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill. At the end of the block it becomes `folder`, or it is removed after an error.

    Raises:
        FileExistsError: at the end, if `folder` exists by then.
    """
    with storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f"{NEW}{folder.name[:100]}-{uuid.uuid4().hex}")
        temporary.mkdir()
    try:
        yield temporary
        try:
            os.rename(temporary, folder)  # noqa: PTH104 - must fail if another process was faster
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "already exists", str(folder)) from error
            raise storage_error(folder, error) from error
    except BaseException as error:
        if isinstance(error, HpcAi500Error):
            error.relocate(temporary, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in `path`.

    Raises:
        InputError: if it cannot be read, is not a regular file (a pipe may never end), or is too large for a record.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError("not a regular file", at=path)
        if (num_bytes := found.st_size) > _MOST_JSON_BYTES:
            raise InputError(f"{num_bytes:,} bytes: too large for a JSON record", at=path)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(error.strerror), at=path) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON ({error})", at=path) from error


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of `path`.

    Raises:
        InputError: if it is not a regular file (a pipe may never end) or has more than `most` bytes.
        OSError: if it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path.name}: not a regular file")
        if found.st_size > most:
            raise InputError(f"{path.name}: {found.st_size:,} bytes: too large for a record of a run")
        content = os.read(fd, found.st_size)
        while len(content) < found.st_size and (more := os.read(fd, found.st_size - len(content))):
            content += more
        return content
    finally:
        os.close(fd)


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> HpcAi500Error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            str(error.strerror), "free some space there, or choose another folder with --output", at=path
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return InputError(str(error.strerror), "choose a folder that you may write to", at=path)
    if error.errno == errno.ENAMETOOLONG:
        return InputError(str(error.strerror), "give a shorter name", at=path)
    return MachineError(error.strerror or str(error), at=path)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Let one process at a time fill `folder`, which is created if it is missing.

    Raises:
        MachineError: if another process is filling it.
    """
    path = folder / ".preparing"
    while True:
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        with file:
            lock_file(
                file,
                0,
                f"{folder}: another process is preparing data there",
                "wait until it has finished, or stop it",
            )
            if not os.fstat(file.fileno()).st_nlink:
                continue  # the process that held the lock has removed the file in the meantime
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def lock_file(
    file: IO[bytes],
    timeout_sec: float,
    what: str,
    hint: str = "wait until it has finished, or stop it: `hpcai500 status` shows its job",
) -> None:
    """Lock `file` until it is closed or this process ends. On a file system without locks, do nothing.

    Raises:
        MachineError: with `what` and `hint`, if another process has held it for `timeout_sec`.
    """
    deadline = time.monotonic() + timeout_sec
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise MachineError(what, hint) from None
            time.sleep(0.2)
        except OSError:
            return
        else:
            return


def digest(value: Any) -> str:
    """SHA-256, in hex, of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def source_files(folder: Path, suffixes: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files below `folder` by name, without hidden and compiled ones; only those with `suffixes`, if any."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


def digest_tree(folder: Path, suffixes: tuple[str, ...] = ()) -> str:
    """SHA-256, in hex, of the names and bytes of the `source_files` of `folder`."""
    return digest_names(
        {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in source_files(folder, suffixes)
        }
    )


def digest_names(sha256: Mapping[str, str]) -> str:
    """SHA-256, in hex, of the files of a folder: relative path to the SHA-256 of its bytes."""
    total = hashlib.sha256()
    for name in sorted(sha256, key=PurePosixPath):
        total.update(f"{name}\0{sha256[name]}\n".encode())
    return total.hexdigest()
