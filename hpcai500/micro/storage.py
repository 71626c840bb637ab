"""Storage as the workloads use it: frames of an HDF5 file, a tree of JPEG files, and the rate of metadata operations.

One process reads. Pages are dropped from this node's cache before each pass, and each sample states whether that
worked. A file server may still answer from its own memory.
"""

import errno
import io
import os
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image

from hpcai500.errors import DataError
from hpcai500.files import storage
from hpcai500.micro.sample import MicroResults, Sample, Skipped, rate

FRAME = (16, 768, 1152)
"""Shape of a frame of ExtremeWeather: float32, 56.6 MB."""
_NUM_FRAMES = 4
_NUM_JPEGS = 512
_JPEG_SIZE = (500, 375)
_METADATA_FOLDERS, _FILES_OF_A_FOLDER = 8, 125
_FEWEST_PASSES = 3
_MOST_BYTES = 1 << 30
"""Limit for the bytes of a prepared data set that one pass reads."""


class Part(NamedTuple):
    """A piece of data that is read at once."""

    path: Path
    frame: int
    """The frame of an HDF5 file; 0 for a whole file."""
    num_bytes: int
    checksum: int | None
    """CRC-32 of the written bytes; None for files that we did not write."""


def measure_storage(folder: Path, *, budget_sec: float) -> MicroResults:
    """Write files to a temporary folder below `folder`, read them and remove them, in about `budget_sec`.

    Raises:
        HpcAi500Error: if `folder` cannot be written to, or is full.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hpcai500-micro-", dir=folder) as name:
            own = Path(name)
            deadline = time.monotonic() + budget_sec
            frames, images = write_frames(own / "frames.h5"), write_images(own / "images")
            share = max(0.0, deadline - time.monotonic()) / 5
            found = measure_reads("storage", frames, images, share)
            return found + measure_metadata(own / "metadata", share)


def measure_prepared(data: Path, *, budget_sec: float) -> MicroResults:
    """Read existing HDF5 frames and JPEG files below `data`, at most 1 GiB of each.

    Raises:
        DataError: if there are none.
    """
    with storage(data):
        frames, images = list(_first_frames(sorted(data.rglob("*.h5")))), list(_first_files(_jpegs_below(data)))
        if not frames and not images:
            raise DataError(f"{data}: no .h5, .jpg or .JPEG files", "give a prepared data set's folder")
        return measure_reads("prepared", frames, images, budget_sec / 4)


def write_frames(path: Path) -> list[Part]:
    generator = np.random.default_rng()
    parts = []
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (_NUM_FRAMES, *FRAME), np.float32)
        for index in range(_NUM_FRAMES):
            frame = generator.random(FRAME, dtype=np.float32)
            images[index] = frame
            parts.append(Part(path, index, frame.nbytes, zlib.crc32(frame.data)))
    return parts


def write_images(folder: Path) -> list[Part]:
    """Write JPEG files of ImageNet's usual size, in folders of 64."""
    generator = np.random.default_rng()
    contents = []
    for _ in range(8):
        coarse = generator.integers(256, size=(48, 64, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize(_JPEG_SIZE).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    parts = []
    for number in range(_NUM_JPEGS):
        path = folder / f"{number // 64:02d}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = contents[number % len(contents)]
        path.write_bytes(content)
        parts.append(Part(path, 0, len(content), zlib.crc32(content)))
    return parts


def measure_reads(prefix: str, frames: Sequence[Part], images: Sequence[Part], share_sec: float) -> MicroResults:
    """Measure reads of each kind of file, in order and shuffled."""
    found = MicroResults()
    for kind, parts, reader in (("hdf5", frames, read_frames), ("jpeg", images, read_files)):
        for order in ("sequential", "random"):
            name = f"{prefix}_{kind}_{order}"
            if parts:
                sample = _measure_passes(name, parts, reader, share_sec, is_shuffled=order == "random")
                found += MicroResults(samples=(sample.model_copy(update={"family": prefix}),))
            else:
                found += MicroResults(skipped=(Skipped(name=name, reason="no such files", family=prefix),))
    return found


Reader = Callable[[Sequence[Part]], Iterator[tuple[float, bool]]]
"""A function that yields, for each part, the seconds of its read and whether the bytes are as written."""


def _measure_passes(
    name: str, parts: Sequence[Part], reader: Reader, budget_sec: float, *, is_shuffled: bool
) -> Sample:
    deadline = time.monotonic() + budget_sec
    seconds: list[float] = []
    cached: list[bool | None] = []
    wrong: set[str] = set()
    while len(seconds) < _FEWEST_PASSES or time.monotonic() < deadline:
        drop_from_cache({part.path for part in parts})
        cached.append(is_cached(parts[-1].path))
        order = random.sample(parts, len(parts)) if is_shuffled else parts
        times, right = zip(*reader(order), strict=True)
        seconds.append(sum(times))
        wrong |= {part.path.name for part, is_right in zip(order, right, strict=True) if not is_right}
    total = sum(part.num_bytes for part in parts)
    found = rate(total, seconds)
    detail = f"{len(parts)} x {total / len(parts) / 1e6:.3g} MB, {_cache_state(cached)}"
    return Sample(
        name=name.replace("_", " "),
        metric=f"{name}_bytes_per_sec",
        unit="B/s",
        value=found.median,
        lower_quartile=found.lower_quartile,
        upper_quartile=found.upper_quartile,
        num_repeats=len(seconds),
        part="storage",
        better="higher",
        detail=f"{detail}: wrong bytes in {', '.join(sorted(wrong)[:3])}" if wrong else detail,
        bytes=float(total),
        correct=not wrong,
    )


def read_frames(parts: Sequence[Part]) -> Iterator[tuple[float, bool]]:
    """Read frames with h5py into one reused buffer."""
    files = {path: h5py.File(path, "r") for path in {part.path for part in parts}}
    try:
        shape = files[parts[0].path]["images"].shape[1:]
        buffer = np.empty(shape, np.float32)
        for part in parts:
            started = time.perf_counter()
            files[part.path]["images"].read_direct(buffer, np.s_[part.frame])
            yield time.perf_counter() - started, part.checksum in (None, zlib.crc32(buffer.data))
    finally:
        for file in files.values():
            file.close()


def read_files(parts: Sequence[Part]) -> Iterator[tuple[float, bool]]:
    """Open, read and close each file."""
    for part in parts:
        started = time.perf_counter()
        content = part.path.read_bytes()
        yield time.perf_counter() - started, part.checksum in (None, zlib.crc32(content))


def drop_from_cache(paths: set[Path]) -> None:
    """Drop the pages of `paths` from the kernel's cache, after writing changed ones to disk."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            with suppress(OSError):  # on a file system that is mounted read-only
                os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def is_cached(path: Path) -> bool | None:
    """Whether the middle of `path` is in this node's memory; None if the file system cannot report it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        middle = os.fstat(fd).st_size // 2
        return os.preadv(fd, [bytearray(1)], middle, os.RWF_NOWAIT) == 1
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    finally:
        os.close(fd)


def _cache_state(cached: Sequence[bool | None]) -> str:
    if None in cached:
        return "cold or cached: unknown"
    return "cached: the file system keeps its pages" if any(cached) else "cold"


def measure_metadata(folder: Path, budget_sec: float) -> MicroResults:
    """Measure how fast empty files are created and queried, folder by folder, and then removed.

    There are few files, and none is removed before all are created. ext4 skips every inode that was removed in the
    last seconds, so earlier removals, by this node or another, slow down creation.
    """
    folder.mkdir()
    deadline = time.monotonic() + budget_sec
    seconds: dict[str, list[float]] = {"create": [], "stat": [], "unlink": []}
    made: list[list[Path]] = []

    def time_all(name: str, paths: Sequence[Path], operate: Callable[[Path], object]) -> None:
        started = time.perf_counter()
        for path in paths:
            operate(path)
        seconds[name].append(time.perf_counter() - started)

    while len(made) < _METADATA_FOLDERS and (len(made) < _FEWEST_PASSES or time.monotonic() < deadline):
        own = folder / str(len(made))
        own.mkdir()
        made.append([own / f"{number:04d}" for number in range(_FILES_OF_A_FOLDER)])
        time_all("create", made[-1], Path.touch)
        time_all("stat", made[-1], Path.stat)
    for paths in made:
        time_all("unlink", paths, Path.unlink)
    return MicroResults(samples=tuple(_metadata_sample(name, measured) for name, measured in seconds.items()))


def _metadata_sample(name: str, seconds: Sequence[float]) -> Sample:
    found = rate(_FILES_OF_A_FOLDER, seconds)
    return Sample(
        name=f"storage {name}",
        metric=f"storage_metadata_{name}_per_sec",
        family="storage",
        unit="1/s",
        value=found.median,
        lower_quartile=found.lower_quartile,
        upper_quartile=found.upper_quartile,
        num_repeats=len(seconds),
        part="storage",
        better="higher",
        detail=f"{_FILES_OF_A_FOLDER} empty files per folder",
    )


def _first_frames(paths: Sequence[Path]) -> Iterator[Part]:
    total = 0
    for path in paths:
        with h5py.File(path, "r") as file:
            if "images" not in file or file["images"].dtype != np.float32:
                continue
            images = file["images"]
            frame_bytes = images.dtype.itemsize * int(np.prod(images.shape[1:]))
            for index in range(len(images)):
                total += frame_bytes
                if total > _MOST_BYTES:
                    return
                yield Part(path, index, frame_bytes, None)


def _jpegs_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file())


def _first_files(paths: Iterator[Path]) -> Iterator[Part]:
    total = 0
    for path in paths:
        num_bytes = path.stat().st_size
        total += num_bytes
        if total > _MOST_BYTES:
            return
        yield Part(path, 0, num_bytes, None)
