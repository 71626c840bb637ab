"""Files of frames: opening, structure, and the encodings of prepared files."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from hpcai500.errors import DataError
from hpcai500.files import storage_error

Storage = Literal["float32", "float16", "bfloat16"]
STORED_TYPES: dict[Storage, np.dtype] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),  # HDF5 and numpy know no bfloat16: its bits
}
BOX_ROWS, BOX_COLUMNS = 15, 5

Array = npt.NDArray[np.float32]


class Encoding(NamedTuple):
    """Encoding of a file: a value is `stored * scale + offset` per channel in 16 bits, the stored one in 32."""

    storage: Storage
    offset: Array
    scale: Array
    """(channels,) each."""

    @property
    def relative_error(self) -> float:
        """Largest error of rounding, as a fraction of a value's distance from `offset`."""
        return {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}[self.storage]

    def encode(self, values: Array, channels: slice) -> npt.NDArray[np.generic]:
        """`values` (..., channels, H, W) as they are stored. Values that are too large become infinite."""
        if self.storage == "float32":
            return np.ascontiguousarray(values, dtype="<f4")
        scaled: Array = (values - self.offset[channels, None, None]) / self.scale[channels, None, None]
        if self.storage == "float16":
            with np.errstate(over="ignore"):
                return scaled.astype("<f2")
        bits = scaled.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")  # rounded to even

    def decode(self, stored: npt.NDArray[np.generic], channels: slice, out: Array) -> None:
        """`stored` (..., channels, H, W) as values, into `out` of the same shape."""
        if self.storage == "float32":
            np.copyto(out, stored)
            return
        if self.storage == "float16":
            np.copyto(out, stored)
        else:
            np.left_shift(stored, 16, out=out.view(np.uint32), dtype=np.uint32)
        out *= self.scale[channels, None, None]
        out += self.offset[channels, None, None]


class Structure(NamedTuple):
    """Structure of a file, from its headers."""

    num_frames: int
    num_channels: int
    height: int
    width: int
    chunks: tuple[int, int, int, int] | None
    storage: Storage

    @property
    def frame_bytes(self) -> int:
        return self.num_channels * self.height * self.width * STORED_TYPES[self.storage].itemsize

    @property
    def num_decoded_bytes(self) -> int:
        return self.num_frames * self.num_channels * self.height * self.width * 4


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of HDF5 and the file system into one line that names `path`."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason})", "fetch or prepare the file again") from error


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn errors while writing, such as a full disk, into one line that names `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = re.search(r"errno = (\d+)", str(error))  # HDF5 gives it only in its message
        if number:
            error = OSError(int(number[1]), os.strerror(int(number[1])))
        if isinstance(error, OSError):
            raise storage_error(path, error) from error
        raise


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    with readable(path), h5py.File(path, "r", locking=False) as file:
        yield file


def read_structure(path: Path, file: h5py.File) -> Structure:
    """The shapes and types of `file`.

    Raises:
        DataError: for a data set that is missing or of the wrong shape or type.
    """
    for name in ("images", "boxes"):
        if not isinstance(file.get(name), h5py.Dataset):
            raise DataError(f"{path}: no data set {name!r}", "is it a climo_YYYY.h5 of ExtremeWeather?")
    images, boxes = file["images"], file["boxes"]
    storage = images.attrs.get("storage", "float32")
    if storage not in STORED_TYPES or images.dtype != STORED_TYPES[storage]:
        raise DataError(f"{path}: images are {images.dtype} (storage {storage!r}), not float32")
    if images.ndim != 4:
        raise DataError(f"{path}: images are {images.shape}, not (frames, channels, height, width)")
    if boxes.shape != (images.shape[0], BOX_ROWS, BOX_COLUMNS) or boxes.dtype != np.int32:
        wanted = (images.shape[0], BOX_ROWS, BOX_COLUMNS)
        raise DataError(f"{path}: boxes are {boxes.dtype} {boxes.shape}, not int32 {wanted}")
    num_frames, num_channels, height, width = images.shape
    return Structure(num_frames, num_channels, height, width, images.chunks, storage)


def prepared_digest(path: Path) -> str | None:
    """Digest of its values that `prepare` stored in a file; None in a published file."""
    with open_file(path) as file:
        return file.attrs.get("content_sha256")


def read_encoding(path: Path, file: h5py.File) -> Encoding:
    images = file["images"]
    storage: Storage = images.attrs.get("storage", "float32")
    num_channels = images.shape[1]
    if storage == "float32":
        return Encoding(storage, np.zeros(num_channels, np.float32), np.ones(num_channels, np.float32))
    try:
        offset, scale = images.attrs["channel_offset"], images.attrs["channel_scale"]
    except KeyError as error:
        raise DataError(f"{path}: {storage} images without their scaling", "prepare the file again") from error
    return Encoding(storage, offset.astype(np.float32), scale.astype(np.float32))


class Block(NamedTuple):
    """Some frames of a file, which a process reads at once."""

    path: Path
    first: int
    end: int


BLOCK_BYTES = 256 * 2**20


def blocks_of(path: Path, structure: Structure) -> list[Block]:
    """All frames, in blocks of whole chunks: the published files' chunks hold dozens of frames."""
    step = structure.chunks[0] if structure.chunks else 1
    decoded = structure.num_decoded_bytes // max(1, structure.num_frames)
    step *= max(1, BLOCK_BYTES // (decoded * step))
    return [Block(path, i, min(i + step, structure.num_frames)) for i in range(0, structure.num_frames, step)]


def read_block(block: Block) -> Iterator[tuple[slice, Array]]:
    """The channels of a block as (channels, values (frames, channels, H, W)), each chunk read once."""
    with open_file(block.path) as file:
        structure, encoding = read_structure(block.path, file), read_encoding(block.path, file)
        step = structure.chunks[1] if structure.chunks else 1
        for first in range(0, structure.num_channels, step):
            channels = slice(first, min(first + step, structure.num_channels))
            stored = file["images"][block.first : block.end, channels]
            values = np.empty(stored.shape, np.float32)
            encoding.decode(stored, channels, values)
            yield channels, values
