"""The ExtremeWeather data set as it is published (Racah et al. 2017): its files, their check, and the manifest."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator
from tqdm import tqdm

from hpcai500.errors import DataError, HpcAi500Error
from hpcai500.files import digest, read_json, write_json
from hpcai500.spec.models import Frozen

from .boxes import (
    NUM_CLASSES,
    BoxOrder,
    ClassBase,
    Rows,
    class_evidence,
    decide_bases,
    decide_order,
    real_rows,
)
from .moments import Moments, no_moments
from .scan import BlockScan, FileScan, file_sha256, scan_block, scan_file
from .storage import Storage, Structure, blocks_of, open_file, prepared_digest, read_structure
from .tasks import run_tasks

CHANNELS = (
    "PRECT", "PS", "PSL", "QREFHT", "T200", "T500", "TMQ", "TREFHT",
    "TS", "U850", "UBOT", "V850", "VBOT", "Z1000", "Z200", "ZBOT",
)  # fmt: skip
"""Channels in order. One version of the data set's page has Z100 for Z1000; its authors' converter reads Z1000."""
CLASS_NAMES = ("tropical depression", "tropical cyclone", "extratropical cyclone", "atmospheric river")
"""Classes in the order of the labels 0 to 3."""
MANIFEST = "manifest.json"

PLAUSIBLE_MEANS = (
    (0, 1e-6), (8e4, 1.1e5), (9.5e4, 1.05e5), (1e-4, 0.03), (180, 250), (220, 290), (2, 60), (220, 310),
    (220, 310), (-20, 20), (-20, 20), (-20, 20), (-20, 20), (-200, 500), (1e4, 1.3e4), (30, 100),
)  # fmt: skip
"""Range of each channel in SI units; values outside show another order of channels or another unit."""

Count = Annotated[int, Field(ge=0)]
Pixels = Annotated[int, Field(ge=16)]
Year = Annotated[int, Field(ge=1000, le=9999)]


class DataSettings(Frozen):
    train_years: Annotated[tuple[Year, ...], Field(min_length=1)]
    eval_years: Annotated[tuple[Year, ...], Field(min_length=1)]
    test_years: tuple[Year, ...]
    """Test years, which no run reads."""
    box_order: Literal["auto", "yxyx", "yyxx"]
    class_base: Literal["auto", "0", "1"]
    """The number of the first class."""
    frame_height: Pixels
    frame_width: Pixels
    num_synthetic_frames: Annotated[int, Field(ge=1)]
    """Frames per year that `synthesize` writes."""
    storage: Storage
    """Encoding that `prepare` writes."""

    @property
    def years(self) -> tuple[int, ...]:
        return tuple(sorted(self.train_years + self.eval_years + self.test_years))

    @model_validator(mode="after")
    def _years_are_apart(self) -> "DataSettings":
        years = self.years
        twice = sorted({year for year in years if years.count(year) > 1})
        if twice:
            shown = ", ".join(map(str, twice))
            raise ValueError(f"train_years, eval_years and test_years must not overlap, and {shown} is there twice")
        return self


class FileEntry(Frozen):
    name: str
    year: int
    sha256: str
    """SHA-256 of the file."""
    content_sha256: str
    """Digest of its values: equal for the published layout and a prepared one of float32."""
    num_frames: Count
    frame_height: Pixels
    frame_width: Pixels
    box_order: BoxOrder
    class_base: ClassBase
    storage: Storage
    boxes_by_class: tuple[Count, Count, Count, Count]
    num_frames_without_box: Count


class Manifest(Frozen):
    """Facts about a data set that training needs before it reads any frame."""

    schema_version: Literal[1] = 1
    train_years: tuple[int, ...]
    """Years that the means and deviations are computed over."""
    files: tuple[FileEntry, ...]
    channel_names: tuple[str, ...]
    channel_mean: tuple[float, ...]
    channel_standard_deviation: tuple[float, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the values of all files and over how their boxes are read."""
        return digest([[f.year, f.content_sha256, f.box_order, f.class_base] for f in self.files])


def file_name(year: int) -> str:
    return f"climo_{year}.h5"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`.

    Raises:
        DataError: if there is none, or it does not fit the files.
    """
    path, hint = folder / MANIFEST, "run `hpcai500 data verify extreme_weather`"
    try:
        manifest = Manifest.model_validate_json(json.dumps(read_json(path)))
    except ValidationError as error:
        raise DataError(f"{path}: {error.errors()[0]['msg']}", hint) from error
    except HpcAi500Error as error:
        raise DataError(error.message, hint) from error
    missing = [entry.name for entry in manifest.files if not (folder / entry.name).is_file()]
    if missing:
        raise DataError(f"{folder}: {missing[0]} of {MANIFEST} is gone", hint)
    return manifest


class CheckedFile(NamedTuple):
    """A file whose structure and boxes are right; its frames are not read yet."""

    path: Path
    year: int
    structure: Structure
    boxes: npt.NDArray[np.int32]
    rows: Rows
    box_order: BoxOrder
    class_base: ClassBase
    finding: str

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return self.rows.values[:, 4].astype(np.int64) - self.class_base


def check_files(settings: DataSettings, folder: Path) -> list[CheckedFile]:
    """The structure and the boxes of the files of the years that `settings` names.

    Raises:
        DataError: for a missing training or evaluation year, or the first file that is wrong.
    """
    opened = []
    for year in settings.years:
        path = folder / file_name(year)
        if not path.is_file() and year in settings.test_years:
            continue
        opened.append(_open_checked(settings, path))
    evidence = {str(rows.path): class_evidence(rows) for _, _, rows in opened}
    bases = decide_bases(evidence, settings.class_base)
    checked = []
    for structure, boxes, rows in opened:
        order, how = decide_order(rows, structure.height, structure.width, settings.box_order)
        base, why = bases[str(rows.path)]
        finding = f"box columns {order} ({how}), classes from {base} ({why})"
        year = int(rows.path.stem.removeprefix("climo_"))
        checked.append(CheckedFile(rows.path, year, structure, boxes, rows, order, base, finding))
    return checked


def _open_checked(settings: DataSettings, path: Path) -> tuple[Structure, npt.NDArray[np.int32], Rows]:
    if not path.is_file():
        raise DataError(f"{path}: no such file", "fetch it, or change data.train_years and data.eval_years")
    with open_file(path) as file:
        structure = read_structure(path, file)
        boxes = file["boxes"][:]
    wanted = (len(CHANNELS), settings.frame_height, settings.frame_width)
    found = (structure.num_channels, structure.height, structure.width)
    if found != wanted or not structure.num_frames:
        raise DataError(
            f"{path}: {structure.num_frames} frames of {found}, the problem has frames of {wanted}",
            "check --problem, or data.frame_height and data.frame_width",
        )
    return structure, boxes, real_rows(path, boxes)


def verify(settings: DataSettings, folder: Path) -> Iterator[str]:
    """Check every file of the configured years and write the manifest; yields one line per finding.

    Raises:
        DataError: naming the file, the place in it and the reason.
    """
    checked = check_files(settings, folder)
    scans = scan_files([(file.path, file.structure, file.boxes) for file in checked])
    entries, moments = [], no_moments(len(CHANNELS))
    for file, (sha256, scan) in zip(checked, scans, strict=True):
        if prepared_digest(file.path) not in (None, scan.content_sha256):
            raise DataError(f"{file.path}: is not what was prepared", "run `hpcai500 data prepare` again")
        entries.append(_entry(file, sha256, scan))
        yield _describe(entries[-1], file)
        yield from _implausible(file.path, scan.moments)
        if file.year in settings.train_years:
            moments = moments.merged(scan.moments)
    manifest = _manifest(settings, folder, entries, moments)
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    absent = sorted({*settings.years} - {entry.year for entry in entries})
    if absent:
        yield f"{folder}: test years {', '.join(map(str, absent))} are not there"
    yield f"{folder / MANIFEST}: {len(entries)} files, digest {manifest.digest[:16]}"


def scan_files(files: Sequence[tuple[Path, Structure, npt.NDArray[np.int32]]]) -> Iterator[tuple[str, FileScan]]:
    """For each file (with its structure and boxes) its SHA-256 and the scan of its frames."""
    blocks = [blocks_of(path, structure) for path, structure, _ in files]
    tasks: list[Callable[[], Any]] = []
    for (path, _, _), part in zip(files, blocks, strict=True):
        tasks += [partial(file_sha256, path), *(partial(scan_block, block) for block in part)]
    results = run_tasks(tasks, num_bytes=sum(structure.num_decoded_bytes for _, structure, _ in files))
    num_frames = sum(structure.num_frames for _, structure, _ in files)
    with tqdm(total=num_frames, unit="frame", desc="scan", disable=None) as bar:
        for (_, _, boxes), part in zip(files, blocks, strict=True):
            yield next(results), scan_file(boxes, _counted(islice(results, len(part)), bar))


def _counted(scans: Iterator[BlockScan], bar: "tqdm[NoReturn]") -> Iterator[BlockScan]:
    for scan in scans:
        bar.update(len(scan.digests))
        yield scan


def _entry(file: CheckedFile, sha256: str, scan: FileScan) -> FileEntry:
    counts = np.bincount(file.labels, minlength=NUM_CLASSES).tolist()
    return FileEntry(
        name=file.path.name,
        year=file.year,
        sha256=sha256,
        content_sha256=scan.content_sha256,
        num_frames=file.structure.num_frames,
        frame_height=file.structure.height,
        frame_width=file.structure.width,
        box_order=file.box_order,
        class_base=file.class_base,
        storage=file.structure.storage,
        boxes_by_class=tuple(counts),
        num_frames_without_box=file.structure.num_frames - len(np.unique(file.rows.frames)),
    )


def _manifest(settings: DataSettings, folder: Path, entries: Sequence[FileEntry], moments: Moments) -> Manifest:
    deviation = moments.standard_deviation
    constant = np.flatnonzero(deviation == 0)
    if len(constant):
        name = CHANNELS[constant[0]]
        raise DataError(f"{folder}: channel {name} is constant over the training years", "fetch the files again")
    return Manifest(
        train_years=settings.train_years,
        files=tuple(entries),
        channel_names=CHANNELS,
        channel_mean=tuple(moments.mean.tolist()),
        channel_standard_deviation=tuple(deviation.tolist()),
    )


def _describe(entry: FileEntry, file: CheckedFile) -> str:
    counts = ", ".join(f"{n:,} {name}s" for n, name in zip(entry.boxes_by_class, CLASS_NAMES, strict=True))
    return (
        f"{file.path}: {entry.num_frames:,} frames, {entry.num_frames_without_box:,} without a box; {counts}; "
        f"{file.finding}"
    )


def _implausible(path: Path, moments: Moments) -> Iterator[str]:
    for name, mean, (low, high) in zip(CHANNELS, moments.mean, PLAUSIBLE_MEANS, strict=True):
        if not low <= mean <= high:
            yield f"{path}: {name} has mean {mean:.4g}, not {low:g} to {high:g}: another order of channels, or unit?"
