"""Frames for training, read by their number from any layout, by many threads and processes at once."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from hpcai500.errors import DataError

from .boxes import corners, real_rows
from .layout import FileEntry, Manifest
from .storage import STORED_TYPES, Encoding, open_file, read_encoding, read_structure, readable

_MAX_CHUNK_CACHE_BYTES = 2**30

Array = npt.NDArray[np.float32]


class Sample(NamedTuple):
    image: Array
    """(16, H, W), in the units of the files."""
    boxes: Array
    """(n, 4) as x1, y1, x2, y2 in pixels: edges, see `Frames`."""
    labels: npt.NDArray[np.int64]
    """(n,), 0 to 3."""


class Frames:
    """The frames of some years, numbered through in the order of the years.

    The data set's page leaves open whether xmax and ymax are inside a box. They are taken as its edges. So a box is
    xmax - xmin wide, as in its authors' reader and in torchvision; xmax may equal the width.

    Files are opened by the process that reads them, at its first read: HDF5's handles must not cross a fork. What
    is stored as it is used (`prepare`) is read with `preadv` outside HDF5, which serves one thread at a time.
    """

    def __init__(self, folder: Path, manifest: Manifest, years: Sequence[int]) -> None:
        entries = {entry.year: entry for entry in manifest.files}
        for year in years:
            if year not in entries:
                raise DataError(
                    f"{folder}: no year {year} in its manifest", "run `hpcai500 data verify extreme_weather`"
                )
        self._folder = folder
        self._entries = [entries[year] for year in sorted(years)]
        self._ends = np.cumsum([entry.num_frames for entry in self._entries])
        self._handles = _Handles(folder, self._entries)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        entry = self._entries[0]
        return 16, entry.frame_height, entry.frame_width

    @property
    def layout(self) -> str:
        """Layout of the files, from the manifest."""
        return ", ".join(sorted({entry.storage for entry in self._entries}))

    def read(self, index: int) -> Sample:
        """A frame in new memory. In a loop `read_into` is several times as fast, since fresh pages are slow."""
        image = np.empty(self.shape, np.float32)
        return Sample(image, *self.read_into(index, image))

    def read_into(self, index: int, out: Array) -> tuple[Array, npt.NDArray[np.int64]]:
        """Read a frame into `out`, C-contiguous float32 (16, H, W), and return its boxes and labels.

        Raises:
            DataError: naming a file that is truncated or unreadable.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        if out.shape != self.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out must be a contiguous float32 array of {self.shape}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        file = self._own_handles().file(number)
        frame = index - int(self._ends[number - 1] if number else 0)
        file.read_into(frame, out)
        return file.boxes[frame].copy(), file.labels[frame].copy()  # whoever flips them keeps the file's

    def _own_handles(self) -> "_Handles":
        if self._handles.pid != os.getpid():
            # What the parent opened stays referenced: closing it here would enter HDF5 with the parent's state.
            self._handles = _Handles(self._folder, self._entries, inherited=self._handles)
        return self._handles

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._handles = _Handles(self._folder, self._entries)


class _Handles:
    """The files that one process has open."""

    def __init__(self, folder: Path, entries: Sequence[FileEntry], inherited: "_Handles | None" = None) -> None:
        self.pid = os.getpid()
        self._folder, self._entries, self._inherited = folder, entries, inherited
        self._files: dict[int, _OpenFile] = {}
        self._lock = threading.Lock()

    def file(self, number: int) -> "_OpenFile":
        found = self._files.get(number)
        if found is None:
            with self._lock:
                if number not in self._files:
                    entry = self._entries[number]
                    self._files[number] = _OpenFile(self._folder / entry.name, entry)
                found = self._files[number]
        return found


class _OpenFile:
    """One file, through a file descriptor if its bytes can be used as they are, else through HDF5."""

    def __init__(self, path: Path, entry: FileEntry) -> None:
        self._path = path
        with open_file(path) as file:
            structure = read_structure(path, file)
            if structure.num_frames != entry.num_frames or structure.storage != entry.storage:
                raise DataError(
                    f"{path} is not the file of the manifest", "run `hpcai500 data verify extreme_weather`"
                )
            self._encoding: Encoding = read_encoding(path, file)
            self._offsets = _frame_offsets(path, file["images"])
            rows = real_rows(path, file["boxes"][:])
        self._stored = STORED_TYPES[structure.storage]
        self._shape = (structure.num_channels, structure.height, structure.width)
        self._scratch = threading.local()
        splits = np.searchsorted(rows.frames, np.arange(1, structure.num_frames))
        boxes = corners(rows.values, entry.box_order).astype(np.float32)
        self.boxes = np.split(boxes, splits)
        self.labels = np.split(rows.values[:, 4].astype(np.int64) - entry.class_base, splits)
        self._descriptor, self._images = -1, None
        with readable(path):
            if self._offsets is None:
                self._images = _cached_images(path, structure.chunks)
            else:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_into(self, frame: int, out: Array) -> None:
        if self._encoding.storage == "float32":
            self._read_stored(frame, out)
            return
        if not hasattr(self._scratch, "stored"):
            self._scratch.stored = np.empty(self._shape, self._stored)
        self._read_stored(frame, self._scratch.stored)
        self._encoding.decode(self._scratch.stored, slice(None), out)

    def _read_stored(self, frame: int, out: npt.NDArray[Any]) -> None:
        if self._offsets is None:
            assert self._images is not None
            with readable(self._path):
                self._images.read_direct(out, np.s_[frame])
            return
        offset, rest = self._offsets[frame], out.data.cast("B")
        with readable(self._path):
            while rest:
                count = os.preadv(self._descriptor, [rest], offset)
                if not count:
                    raise DataError(f"{self._path} is truncated at frame {frame}", "fetch or prepare it again")
                offset, rest = offset + count, rest[count:]

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)


def _frame_offsets(path: Path, images: h5py.Dataset) -> list[int] | None:
    """Offset of each frame in the file; None if frames are compressed, byte-swapped or in pieces."""
    num_frames, *frame_shape = images.shape
    if images.id.get_create_plist().get_nfilters() or not images.dtype.isnative or images.external:
        return None
    if images.chunks is None:
        start, size = images.id.get_offset(), images.dtype.itemsize * int(np.prod(frame_shape))
        offsets = None if start is None else [start + frame * size for frame in range(num_frames)]
    elif images.chunks == (1, *frame_shape):
        offsets = [images.id.get_chunk_info_by_coord((i, 0, 0, 0)).byte_offset for i in range(num_frames)]
    else:
        return None
    if offsets is None or None in offsets:
        raise DataError(f"{path}: images were never written", "prepare the file again")
    return offsets


def _cached_images(path: Path, chunks: tuple[int, int, int, int] | None) -> h5py.Dataset:
    """The data set, with a chunk cache that keeps the chunks of one frame where the next frame is in them too.

    The published chunks hold dozens of frames, so frames in their order are then decompressed once. A chunk of one
    frame is read once anyway, and a cache that cannot hold a frame's chunks keeps none: both do without.
    """
    file = h5py.File(path, "r", locking=False)
    images = file["images"]
    if chunks is None or chunks[0] == 1:
        return images
    num_chunks = int(np.prod([-(-size // chunk) for size, chunk in zip(images.shape[1:], chunks[1:], strict=True)]))
    num_bytes = num_chunks * int(np.prod(chunks)) * images.dtype.itemsize
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(100 * num_chunks + 1, num_bytes if num_bytes <= _MAX_CHUNK_CACHE_BYTES else 0, 1.0)
    images.id.close()
    return h5py.Dataset(h5py.h5d.open(file.id, b"images", access))
