"""ImageNet in a few large HDF5 files: the bytes of the original files, and an index that is mapped into memory."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from hpcai500.errors import DataError

from .data import ImageIndex, Indices
from .decoding import Bytes
from .shard_names import INDEX
from .spans import SpanIndex

_TABLES = ("names", "ends", "labels", "firsts", "offsets", "lengths")
_UNREADABLE = (OSError, KeyError, RuntimeError, TypeError, ValueError)
"""Errors of h5py and numpy for a damaged file."""

FORMAT = 1


class PackedIndex(SpanIndex):
    """One split of a folder that `pack` wrote; its arrays are pages of the index file, shared by all processes."""

    layout = "shards"
    remedy = "prepare the data set again"

    def __init__(self, folder: Path, split: str) -> None:
        path = folder / INDEX
        try:
            with h5py.File(path, "r", locking=False) as file:
                group = file[split]
                arrays = {name: _mapped(path, group[name]) for name in _TABLES}
                files = [folder / name for name in group.attrs["shards"]]
        except _UNREADABLE as error:
            raise DataError(f"{path}: cannot be read ({error})", "prepare the data set again") from error
        super().__init__(folder, files=files, **arrays)
        self._split = split
        self._digests: dict[int, Sequence[bytes]] = {}

    def check(self, index: int) -> Bytes:
        number = self.file_of(index)
        if number not in self._digests:
            self._digests[number] = self._digests_of(number)
        data = self.read(index)
        if sha256(data) != self._digests[number][index - int(self.firsts[number])]:
            raise DataError(f"{self.place(index)}: differs from what was packed", self.remedy)
        self._must_decode(index, data)
        return data

    def _digests_of(self, number: int) -> Sequence[bytes]:
        """Digests of a shard's files, after a check that its names, labels and lengths are those of the index."""
        shard = read_shard(self.files[number])
        bounds = [*self.firsts.tolist(), len(self)]
        members = range(bounds[number], bounds[number + 1])
        with suppress(ValueError, IndexError):  # an invalid name, or an offset outside the file
            if Part(self, members).identity(self.lengths[members.start : members.stop]) == shard.identity:
                return shard.digests
        raise DataError(f"{self.root / INDEX}: is not of {self.files[number].name}", self.remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedIndex, (self.root, self._split)


def open_packed(folder: Path, num_classes: int) -> Indices:
    """The splits of a folder that `pack` wrote.

    Raises:
        DataError: if it holds another number of classes, or a file is missing or broken.
    """
    path = folder / INDEX
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = int(file.attrs["num_classes"])
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read ({error})", "prepare the data set again") from error
    if found != num_classes:
        raise DataError(f"{folder}: {found} classes, the model has {num_classes}", "check --problem")
    return Indices(PackedIndex(folder, "train"), PackedIndex(folder, "val"))


class Part(NamedTuple):
    index: ImageIndex
    members: range

    def identity(self, lengths: npt.NDArray[np.int64]) -> str:
        total = hashlib.sha256(f"{FORMAT}".encode())
        for member in self.members:
            total.update(f"{self.index.name(member)} {self.index.labels[member]}\n".encode())
        total.update(lengths.astype("<i8").tobytes())
        return total.hexdigest()

    def digests(self, pool: ThreadPoolExecutor) -> list[bytes]:
        return list(pool.map(lambda member: sha256(self.index.read(member)), self.members))


class Shard(NamedTuple):
    """Tables of a shard."""

    identity: str
    lengths: npt.NDArray[np.int64]
    offset: int
    """Offset of its first file."""
    digests: list[bytes]


def read_shard(path: Path) -> Shard:
    try:
        with h5py.File(path, "r", locking=False) as file:
            digests = [row.tobytes() for row in file["sha256"][:]]
            offset = int(file["files"].id.get_offset())
            return Shard(str(file.attrs["identity"]), file["lengths"][:], offset, digests)
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read ({error})", PackedIndex.remedy) from error


def _mapped(path: Path, data: h5py.Dataset) -> npt.NDArray[Any]:
    return np.memmap(path, data.dtype, "r", data.id.get_offset(), data.shape)


def sha256(data: Bytes) -> bytes:
    return hashlib.sha256(data).digest()
