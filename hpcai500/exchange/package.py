"""A result set as one archive: runs, their logs and the source of their workloads, with the SHA-256 of every file.

An archive may come from anyone: names, sizes and counts are checked against limits before anything is unpacked.
"""

import hashlib
import json
import re
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal

from pydantic import Field

from hpcai500.errors import HpcAi500Error, InputError, OccupiedError, ShortfallError
from hpcai500.events.reader import MOST_LOG_BYTES
from hpcai500.files import digest_names, storage
from hpcai500.score.record.folders import run_folders
from hpcai500.score.record.limits import MOST_RECORD_BYTES
from hpcai500.score.record.run_files import MANIFEST, SEALED, RunFiles
from hpcai500.score.record.source import ARCHIVE_SUFFIX
from hpcai500.spec.code import digest_files
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.run import AnyRun, read_run

CONTENTS = "package.json"
_OF_A_RUN = (*SEALED, MANIFEST, "result.json", "job.sbatch")

MOST_FILES = 100_000
MOST_BYTES = 8 * 2**30
MOST_CONTENTS_BYTES = 64 * 2**20
MOST_LOGS_BYTES = 256 * 2**20
"""Limit for the logs of all runs together, as large as those of ten thousand real runs."""
MOST_RATIO = 200
"""Highest compression ratio: records of real runs reach 10, zip bombs 1,000."""

_LONGEST_PART = 255
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, RecursionError,
)  # fmt: skip

_EPOCH = (1980, 1, 1, 0, 0, 0)
_BLOCK = 2**20
_PART = r"[A-Za-z0-9_]([A-Za-z0-9._+=@-]*[A-Za-z0-9_+=@-])?"
_NAME = re.compile(rf"{_PART}(/{_PART})*")
"""Names that no page, shell or spreadsheet can misread: no space, quote, angle bracket, backslash, colon or control
character, and no part that starts like an option, a formula or a hidden file."""
_DEVICE = re.compile(r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Device names of Windows, reserved in every folder."""
_SOURCE = re.compile(r"(workloads/[^/]+/[^/]+)/(.+)")


class PackedFile(Frozen):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    num_bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]


class Contents(Frozen):
    """Content of the archive's `package.json`."""

    schema_version: Literal[1] = 1
    files: dict[str, PackedFile]


def pack(paths: Iterable[Path], archive: Path) -> Contents:
    """Write the runs at or below `paths` into `archive`: equal files give equal bytes.

    Raises:
        InputError: if a path has no runs, or a file may not be in an archive.
        OccupiedError: if `archive` exists.
    """
    if archive.suffix.lower() != ARCHIVE_SUFFIX:
        hint = f"name it {archive.stem}{ARCHIVE_SUFFIX}"
        raise InputError(f"--output {archive}: an archive is a {ARCHIVE_SUFFIX} file", hint)
    if archive.exists():
        raise OccupiedError(f"{archive} exists already", "give another --output")
    files: dict[str, Path] = {}
    for folder in dict.fromkeys(folder for path in paths for folder in run_folders(path)):
        found = _files_of(folder)
        twice = next((name for name in found if name.startswith("runs/") and name in files), None)
        if twice and files[twice] != found[twice]:
            raise InputError(
                f"{found[twice]}: {files[twice]} would have the same name in the archive",
                "a result set has each run of a system only once: leave one out",
            )
        files |= found
    for name, path in files.items():
        if fault := _name_fault(name):
            raise InputError(f"{path}: {fault}", "rename it")
    with storage(archive):
        archive.parent.mkdir(parents=True, exist_ok=True)
        with archive.open("xb"):
            pass
    try:
        return _write(files, archive)
    except BaseException:
        archive.unlink()
        raise


def _write(files: dict[str, Path], archive: Path) -> Contents:
    held: dict[str, PackedFile] = {}
    with storage(archive), zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(files):
            content = files[name].read_bytes()
            held[name] = PackedFile(sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content))
            target.writestr(_entry(name), content, _method(content))
        contents = Contents(files=held)
        target.writestr(_entry(CONTENTS), json.dumps(contents.model_dump(mode="json"), indent=1) + "\n")
    with zipfile.ZipFile(archive) as written:
        for fault in _form_faults(written):
            raise InputError(f"{archive}: {fault}", "leave the run out, or the file")
    return contents


def _method(content: bytes) -> int:
    """Deflate, unless content is so repetitive that it would look like a zip bomb (the same warning 10,000 times)."""
    is_suspect = len(content) > _BLOCK and len(content) > MOST_RATIO * len(zlib.compress(content))
    return zipfile.ZIP_STORED if is_suspect else zipfile.ZIP_DEFLATED


def _files_of(folder: Path) -> dict[str, Path]:
    """Files of one run, by name in the archive, and of its workload's source if that has not changed since."""
    RunFiles(folder).require_regular()
    spec = read_run(folder / "run.json")
    prefix = f"runs/{spec.system}/{spec.workload.name}/{spec.problem}-{spec.level}/{folder.name}"
    found = {f"{prefix}/{name}": folder / name for name in _OF_A_RUN if (folder / name).is_file()}
    logs = folder / "logs"
    found |= {f"{prefix}/logs/{path.name}": path for path in sorted(logs.glob("[!.]*")) if path.is_file()}
    return found | _source_of(spec)


def _source_of(spec: AnyRun) -> dict[str, Path]:
    """Name in the archive to path, for the source of the workload or foreign program; empty if it has changed."""
    if not spec.workload.folder:
        return {}
    folder, files = Path(spec.workload.folder), spec.source_code()
    if digest_files(folder, files) != spec.workload.code_digest:
        return {}
    prefix = _source_prefix(spec.workload.code_digest, spec.workload.name)
    return {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in files}


def _source_prefix(code_digest: str, name: str) -> str:
    return f"workloads/{code_digest[:16]}/{name}"


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def verify(archive: Path) -> list[str]:
    """One line for each file that is altered, missing, not listed, or not allowed in an archive.

    The source of a workload must have the digest that a run of the archive records.

    Raises:
        InputError: if it is not an archive, or has no package.json.
    """
    return look(archive)[0]


def look(archive: Path) -> tuple[list[str], list[str]]:
    """Faults as from `verify`, and for an archive without faults a note on each workload whose source is missing."""
    if archive.exists() and not archive.is_file():
        raise InputError(f"{archive}: not a regular file")
    try:
        with zipfile.ZipFile(archive) as source:
            faults = list(_form_faults(source))
            if faults:
                return faults, []  # not a byte of these is unpacked
            contents = _contents(source, archive)
            faults = list(_content_faults(source, contents))
            return (faults, []) if faults else _source_faults(source, contents)
    except OSError as error:
        raise InputError(f"{archive}: {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise InputError(f"{archive}: not a readable archive ({str(error)[:200]})") from error


def unpack(archive: Path, folder: Path, *, unverified: bool = False) -> None:
    """Unpack an archive without faults into `folder`, which must be empty or absent.

    `unverified` unpacks altered files too, but never forbidden names, links or sizes.

    Raises:
        ShortfallError: with the first fault.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OccupiedError(f"{folder} is not empty", "give another folder")
    faults = verify(archive)
    try:
        with zipfile.ZipFile(archive) as source:
            if faults and not (unverified and not list(_form_faults(source))):
                raise ShortfallError(f"{archive}: {faults[0]}", "get it again from its author")
            for info in source.infolist():
                _unpack_one(source, info, folder / info.filename)
    except _UNREADABLE as error:
        raise InputError(f"{archive}: not a readable archive ({str(error)[:200]})") from error


def _unpack_one(source: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    with storage(path), source.open(info) as packed:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            for block in _blocks(packed, info.file_size):
                target.write(block)


def _form_faults(source: zipfile.ZipFile) -> Iterator[str]:
    """Faults that show without unpacking."""
    entries = source.infolist()
    if not _is_seamless(source):
        yield "has bytes before, between or after its files"
    if len(entries) > MOST_FILES:
        yield f"holds {len(entries):,} files, more than {MOST_FILES:,}"
        return
    if (total := sum(info.file_size for info in entries)) > MOST_BYTES:
        yield f"would unpack to {total:,} bytes, more than {MOST_BYTES:,}"
    if (logged := sum(info.file_size for info in entries if _is_log(info))) > MOST_LOGS_BYTES:
        yield f"holds {logged:,} bytes of events, more than {MOST_LOGS_BYTES:,}"
    seen: set[str] = set()
    for info in entries:
        mode = info.external_attr >> 16
        if fault := _name_fault(info.orig_filename):
            yield fault
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            yield f"{_shown(info.filename)}: is a link, or not a regular file"
        if info.file_size > MOST_RATIO * max(1, info.compress_size) + _BLOCK:
            yield f"{_shown(info.filename)}: {info.compress_size:,} bytes would become {info.file_size:,}"
        if info.compress_type not in _METHODS:
            yield f"{_shown(info.filename)}: packed by another method than deflate"
        if info.filename.endswith(".json") and info.filename != CONTENTS and info.file_size > MOST_RECORD_BYTES:
            yield f"{_shown(info.filename)}: {info.file_size:,} bytes, too large for a record of a run"
        if _is_log(info) and info.file_size > MOST_LOG_BYTES:
            yield f"{_shown(info.filename)}: {info.file_size:,} bytes, too large for the log of a run"
        if info.filename.casefold() in seen:
            yield f"{_shown(info.filename)}: occurs twice"
        seen.add(info.filename.casefold())
    for name in sorted(seen):
        if any(str(above) in seen for above in PurePosixPath(name).parents):
            yield f"{_shown(name)}: lies below a name that is also a file"


def _is_log(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/events.log")


def _is_seamless(source: zipfile.ZipFile) -> bool:
    """Whether the archive consists of its files, their directory and its end record, without other bytes.

    Source: APPNOTE.TXT 4.3.7 (a local header: 30 bytes, the lengths of name and extra field at 26) and 4.3.16.
    """
    file, end = source.fp, 0
    assert file is not None
    for info in sorted(source.infolist(), key=lambda entry: entry.header_offset):
        file.seek(info.header_offset)
        header = file.read(30)
        if info.header_offset != end or header[:4] != b"PK\x03\x04":
            return False
        lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        end += len(header) + sum(lengths) + info.compress_size
    file.seek(-22, 2)
    record = file.read()
    return end == source.start_dir and record[:4] == b"PK\x05\x06" and record[-2:] == b"\0\0"


def _name_fault(name: str) -> str:
    parts = name.split("/")
    if (
        not _NAME.fullmatch(name) or len(name) > 1_000 or max(map(len, parts)) > _LONGEST_PART
        or any(_DEVICE.fullmatch(part) for part in parts)
    ):  # fmt: skip
        return f"{_shown(name)}: not a name that an archive may hold"
    return ""


def _shown(name: str) -> str:
    """A name from an archive, made safe for a terminal and a page."""
    return ascii(re.sub(r"[<>&\"']", "?", name[:120]))


def _contents(source: zipfile.ZipFile, archive: Path) -> Contents:
    try:
        info = source.getinfo(CONTENTS)
    except KeyError as error:
        raise InputError(f"{archive}: no {CONTENTS} in it", "use an archive made by `hpcai500 package`") from error
    if info.file_size > MOST_CONTENTS_BYTES:
        raise InputError(f"{archive}: {CONTENTS} has {info.file_size:,} bytes")
    with source.open(info) as file:
        return parse(Contents, json.loads(b"".join(_blocks(file, info.file_size))), CONTENTS)


def _content_faults(source: zipfile.ZipFile, contents: Contents) -> Iterator[str]:
    entries = {info.filename: info for info in source.infolist()}
    for name in sorted(entries.keys() - contents.files.keys() - {CONTENTS}):
        yield f"{_shown(name)}: not named in {CONTENTS}"
    for name, held in sorted(contents.files.items()):
        if name not in entries:
            yield f"{_shown(name)}: missing"
            continue
        try:
            total = hashlib.sha256()
            with source.open(entries[name]) as file:
                for block in _blocks(file, held.num_bytes):
                    total.update(block)
            altered = total.hexdigest() != held.sha256
        except (*_UNREADABLE, HpcAi500Error, OSError):
            altered = True
        if altered:
            yield f"{_shown(name)}: altered"


def _source_faults(source: zipfile.ZipFile, contents: Contents) -> tuple[list[str], list[str]]:
    """Faults: source trees that no run of the archive used. Notes: source that a run used and that is missing."""
    trees: dict[str, dict[str, str]] = defaultdict(dict)
    faults, ran = [], {}
    for name, held in sorted(contents.files.items()):
        if found := _SOURCE.fullmatch(name):
            trees[found[1]][found[2]] = held.sha256
        elif name.startswith("workloads/"):
            faults.append(f"{_shown(name)}: not part of a workload")
        elif name.startswith("runs/") and name.endswith("/run.json"):
            digest, workload = _what_ran(source, name)
            if digest:
                ran[_source_prefix(digest, workload), digest] = workload
    for prefix, files in trees.items():
        if not any(used == prefix for used, _ in ran):
            faults.append(f"{_shown(prefix)}: not the source of any run in it")
        elif (prefix, digest_names(files)) not in ran:
            faults.append(f"{_shown(prefix)}: not the source that ran: its digest is {digest_names(files)[:16]}")
    absent = sorted((workload, digest) for (prefix, digest), workload in ran.items() if prefix not in trees)
    return faults, [
        f"source of {_shown(workload)} ({_shown(digest[:16])}) is not in it" for workload, digest in absent
    ]


def _what_ran(source: zipfile.ZipFile, name: str) -> tuple[str, str]:
    """Digest and name of a run's workload; empty if its record, which `check` judges, lacks them."""
    try:
        workload = json.loads(source.read(name))["workload"]
        return str(workload["code_digest"] or ""), str(workload["name"])
    except (KeyError, TypeError, *_UNREADABLE):
        return "", ""


def _blocks(file: IO[bytes], num_bytes: int) -> Iterator[bytes]:
    """The file's bytes, checked to be no more than the directory states."""
    read = 0
    while block := file.read(_BLOCK):
        read += len(block)
        if read > num_bytes:
            raise InputError("a file is longer than the archive's directory states")
        yield block
