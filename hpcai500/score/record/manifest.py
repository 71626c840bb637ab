"""manifest.json: the SHA-256 of a run's files as they were when the run ended."""

import hashlib
from pathlib import Path
from typing import Literal

from hpcai500.files import read_json, storage, write_json
from hpcai500.spec.models import Frozen, parse

MANIFEST = "manifest.json"
SEALED = ("run.json", "events.log", "system.json", "evaluation.json", "timing.json")
"""Not result.json, which follows from these and may be derived again by a later version."""


class Manifest(Frozen):
    schema_version: Literal[1] = 1
    sha256: dict[str, str]


def seal(folder: Path) -> None:
    """Write the manifest of a run that has ended; one that stands there already is never replaced."""
    path = folder / MANIFEST
    if not path.exists():
        digests = {name: sha256_of(folder / name) for name in SEALED if (folder / name).exists()}
        write_json(path, Manifest(sha256=digests).model_dump(mode="json"))


def altered(folder: Path) -> list[str]:
    """One line for each sealed file that is no more what it was.

    Raises:
        InputError: if the manifest cannot be read.
    """
    path = folder / MANIFEST
    manifest = parse(Manifest, read_json(path), path)
    lines = [
        f"{name}: no SHA-256 in {MANIFEST}"
        for name in SEALED
        if name not in manifest.sha256 and (folder / name).exists()
    ]
    for name, expected in manifest.sha256.items():
        if name not in SEALED:
            lines.append(f"{MANIFEST} names {name[:80]!r}, which no run seals")
        elif not (folder / name).is_file():
            lines.append(f"{name}: missing")
        elif sha256_of(folder / name) != expected:
            lines.append(f"{name}: altered since the run ended")
    return lines


def sha256_of(path: Path) -> str:
    """In hex."""
    with storage(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
