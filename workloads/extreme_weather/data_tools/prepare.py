"""The published files as files that train fast: frames whole, uncompressed and one after the other."""

import mmap
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from tqdm import tqdm

from hpcai500.errors import DataError, OccupiedError, SpecError
from hpcai500.files import sole_writer

from ..layout import CheckedFile, DataSettings, check_files, scan_files, verify
from ..scan import content_digest, file_sha256, plane_digest
from ..storage import (
    STORED_TYPES,
    Block,
    Encoding,
    Storage,
    Structure,
    blocks_of,
    open_file,
    prepared_digest,
    read_block,
    read_structure,
    writable,
)
from ..tasks import run_tasks

_SAMPLE_FRAMES = 4
_SMALLEST_STEP = {"float32": 0.0, "float16": 2.0**-25, "bfloat16": 0.0}
"""Half of the distance between the smallest numbers, over the scale."""


def prepare(settings: DataSettings, source: Path | None, folder: Path) -> Iterator[str]:
    """Write each configured year of `source` into `folder`, checked, and the manifest; yields lines to print.

    A file stays that was prepared from the same bytes in the same storage and holds what was written; another is
    written anew.

    Raises:
        SpecError: without a source, or if it is the destination.
        DataError: naming what is wrong with the source, or with what was written.
        MachineError: if another process is preparing data there.
    """
    if source is None:
        raise SpecError("nothing to prepare from", "give --source, the folder of the published climo_YYYY.h5 files")
    if not source.is_dir():
        raise DataError(f"no data directory {source}", "give --source")
    if folder.exists() and folder.samefile(source):
        raise OccupiedError(f"{folder} is the source itself, which is never changed", "give another --data")
    checked = check_files(settings, source)
    num_bytes = sum(file.structure.num_decoded_bytes for file in checked)
    with sole_writer(folder):
        sums = run_tasks([partial(file_sha256, file.path) for file in checked], num_bytes=num_bytes)
        for file, source_sha256 in zip(checked, sums, strict=True):
            target = folder / file.path.name
            if target.exists():
                if not (fault := _fault(target, file, source_sha256, settings.storage)):
                    yield f"{target}: prepared already"
                    continue
                yield f"{fault}; it is written anew"
            yield _prepare_file(file, source_sha256, target, settings.storage)
        yield from verify(settings, folder)


def _fault(target: Path, file: CheckedFile, source_sha256: str, wanted: Storage) -> str:
    """Difference between `target` and a newly prepared `file`; empty if there is none."""
    try:
        with open_file(target) as opened:
            structure, boxes = read_structure(target, opened), opened["boxes"][:]
            source = opened.attrs.get("source_sha256")
        written = prepared_digest(target)
        same = source == source_sha256 and structure == file.structure._replace(chunks=None, storage=wanted)
        if not same or written is None:
            return f"{target}: is of another source, storage or version"
        ((_, found),) = scan_files([(target, structure, boxes)])
        return "" if found.content_sha256 == written else f"{target}: is not what was prepared"
    except DataError as error:
        return error.message


def _prepare_file(file: CheckedFile, source_sha256: str, target: Path, wanted: Storage) -> str:
    temporary = target.with_name(f".{target.name}.partial")
    encoding = _choose_encoding(file, wanted)
    try:
        with writable(target):
            offset = _create(temporary, file, encoding, source_sha256)
            written, error = _copy(file, temporary, offset, encoding)
            _sign(temporary, written)
        ((_, found),) = scan_files([(temporary, _structure(temporary), file.boxes)])
        if found.content_sha256 != written:
            raise DataError(f"{target}: what was written reads back differently", "check the disk, and prepare again")
        with writable(target):
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return f"{target}: {file.structure.num_frames:,} frames as {wanted}, {_accuracy(encoding, error)}"


def _accuracy(encoding: Encoding, error: float) -> str:
    if encoding.storage == "float32":
        return "bit for bit the source"
    bound = f"2^{int(np.log2(encoding.relative_error))}"
    return f"each value within {bound} of its distance from the mean, at most {error:.1e} standard deviations"


def _choose_encoding(file: CheckedFile, wanted: Storage) -> Encoding:
    """Offset and scale from a few frames through the year: the numbers float, so the rough place is enough."""
    num_channels = file.structure.num_channels
    if wanted == "float32":
        return Encoding(wanted, np.zeros(num_channels, np.float32), np.ones(num_channels, np.float32))
    with open_file(file.path) as opened:
        images, num_frames = opened["images"], file.structure.num_frames
        picked = sorted({num_frames * part // _SAMPLE_FRAMES for part in range(_SAMPLE_FRAMES)})
        sample = np.stack([images[frame] for frame in picked])
    mean, deviation = sample.mean(axis=(0, 2, 3), dtype=np.float64), sample.std(axis=(0, 2, 3), dtype=np.float64)
    if not (np.isfinite(deviation) & (deviation > 0)).all():
        channel = int(np.argmin(np.isfinite(deviation) & (deviation > 0)))
        raise DataError(f"{file.path}: channel {channel} is constant or not finite", "fetch the file again")
    return Encoding(wanted, mean.astype(np.float32), deviation.astype(np.float32))


def _create(path: Path, file: CheckedFile, encoding: Encoding, source_sha256: str) -> int:
    """An empty contiguous file of full size; the offset of its first frame.

    The space is taken at once, so that a disk that is too small fails now.
    """
    structure = file.structure
    shape = (structure.num_frames, structure.num_channels, structure.height, structure.width)
    stored = STORED_TYPES[encoding.storage]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)  # the same bytes at any time
    with h5py.File(path, "w", alignment_threshold=structure.frame_bytes, alignment_interval=mmap.PAGESIZE) as opened:
        opened.attrs["source_sha256"] = source_sha256
        opened.create_dataset("boxes", data=file.boxes, dtype="<i4")
        space = h5py.h5s.create_simple(shape)
        images = h5py.Dataset(h5py.h5d.create(opened.id, b"images", h5py.h5t.py_create(stored), space, plist))
        images.attrs["storage"] = encoding.storage
        if encoding.storage != "float32":
            images.attrs["channel_offset"], images.attrs["channel_scale"] = encoding.offset, encoding.scale
        offset: int = images.id.get_offset()
    with path.open("r+b") as raw:
        os.posix_fallocate(raw.fileno(), 0, offset + int(np.prod(shape)) * stored.itemsize)
    return offset


class _Copy(NamedTuple):
    source: Block
    target: Path
    offset: int
    """Index of the target's first frame."""
    encoding: Encoding
    plane_shape: tuple[int, int]
    num_channels: int


class _Copied(NamedTuple):
    digests: list[list[bytes]]
    error: float
    """Largest error, relative to the scale of its channel."""


def _copy(file: CheckedFile, target: Path, offset: int, encoding: Encoding) -> tuple[str, float]:
    """Copy all frames; the digest that the target must have, and the largest error."""
    structure = file.structure
    shape = (structure.height, structure.width)
    tasks = [
        partial(_copy_block, _Copy(block, target, offset, encoding, shape, structure.num_channels))
        for block in blocks_of(file.path, structure)
    ]
    digests: list[list[bytes]] = []
    error = 0.0
    with tqdm(total=structure.num_frames, unit="frame", desc=file.path.name, disable=None) as bar:
        for copied in run_tasks(tasks, num_bytes=structure.num_decoded_bytes):
            digests += copied.digests
            error = max(error, copied.error)
            bar.update(len(copied.digests))
    return content_digest(digests, file.boxes), error


def _sign(path: Path, content_sha256: str) -> None:
    """Complete a file with the digest of its values, so that later readers can compare them."""
    with h5py.File(path, "r+") as opened:
        opened.attrs["content_sha256"] = content_sha256
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _copy_block(task: _Copy) -> _Copied:
    block, encoding = task.source, task.encoding
    digests: list[list[bytes]] = [[] for _ in range(block.end - block.first)]
    largest = 0.0
    plane_bytes = int(np.prod(task.plane_shape)) * STORED_TYPES[encoding.storage].itemsize
    with writable(task.target):
        descriptor = os.open(task.target, os.O_WRONLY)
        try:
            for channels, values in read_block(block):
                stored = encoding.encode(values, channels)
                decoded = np.empty_like(values)
                encoding.decode(stored, channels, decoded)
                largest = max(largest, _checked_error(block, encoding, channels, values, decoded))
                for index, frame in enumerate(range(block.first, block.end)):
                    digests[index] += [plane_digest(plane) for plane in decoded[index]]
                    place = (frame * task.num_channels + channels.start) * plane_bytes
                    _write_at(descriptor, stored[index], task.offset + place)
        finally:
            os.close(descriptor)
    return _Copied(digests, largest)


def _checked_error(
    block: Block, encoding: Encoding, channels: slice, values: np.ndarray, decoded: np.ndarray
) -> float:
    """The largest error over its channel's scale.

    Raises:
        DataError: if a value is off by more than the storage's rounding and that of float32.
    """
    if encoding.storage == "float32":
        return 0.0  # the digest of the values read back shows any difference
    scale, offset = encoding.scale[channels, None, None], encoding.offset[channels, None, None]
    error = np.abs(decoded.astype(np.float64) - values)
    allowed = np.abs(values - offset) * (encoding.relative_error + 2.0**-22) + np.abs(offset) * 2.0**-23
    allowed += scale * _SMALLEST_STEP[encoding.storage]
    if not (error <= allowed).all():
        frame, channel, row, column = np.argwhere(~(error <= allowed))[0]
        place = f"images[{block.first + frame}, {channels.start + channel}, {row}, {column}]"
        value = values[frame, channel, row, column]
        raise DataError(
            f"{block.path}: {place} = {value:g} does not fit {encoding.storage}", "use data.storage=float32"
        )
    return float((error / scale).max())


def _write_at(descriptor: int, values: np.ndarray, offset: int) -> None:
    rest = np.ascontiguousarray(values).data.cast("B")
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + count, rest[count:]


def _structure(path: Path) -> Structure:
    with open_file(path) as file:
        return read_structure(path, file)
