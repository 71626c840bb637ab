"""manifest.json: the SHA-256 of a run's files as they were when the run ended."""

import hashlib
from pathlib import Path
from typing import Literal

from hpcai500.files import storage, write_json
from hpcai500.score.record.run_files import MANIFEST, SEALED, RunFiles, files_of
from hpcai500.spec.models import Frozen, parse


class Manifest(Frozen):
    schema_version: Literal[1] = 1
    sha256: dict[str, str]


def seal(folder: Path) -> None:
    """Write the manifest of a run that has ended; an existing one is never replaced."""
    files = RunFiles(folder)
    if not files.exists(MANIFEST):
        digests = {name: files.sha256(name) for name in SEALED if files.exists(name)}
        write_json(folder / MANIFEST, Manifest(sha256=digests).model_dump(mode="json"))


def altered(folder: Path | RunFiles) -> list[str]:
    """One line for each sealed file that has changed since.

    Raises:
        InputError: if the manifest cannot be read.
    """
    files = files_of(folder)
    manifest = parse(Manifest, files.record(MANIFEST), files.path(MANIFEST))
    lines = [
        f"{name}: no SHA-256 in {MANIFEST}" for name in SEALED if name not in manifest.sha256 and files.exists(name)
    ]
    for name, expected in manifest.sha256.items():
        if name not in SEALED:
            lines.append(f"{MANIFEST} names {name[:80]!r}, which no run seals")
        elif not files.path(name).is_file():
            lines.append(f"{name}: missing")
        elif files.sha256(name) != expected:
            lines.append(f"{name}: altered since the run ended")
    return lines


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with storage(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
