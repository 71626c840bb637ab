"""Packing of ImageNet into shards: a few large HDF5 files with the bytes of the original files, and an index."""

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from hpcai500.errors import DataError, OccupiedError
from hpcai500.files import sole_writer, storage

from ..data import ImageIndex, Indices
from ..decoding import Bytes
from ..shard_names import INDEX, SHARD
from ..shards import FORMAT, Part, open_packed, read_shard, sha256
from ..spans import read_at

IMAGES_PER_SHARD = 32_768
"""Images per shard, about 4 GB of ImageNet."""
_BLOCK = 256
_NUM_READERS = 16
"""Threads that read small files: a parallel file system takes a millisecond for each."""


def pack(source: Indices, folder: Path) -> Iterator[str]:
    """Write the files of `source` into `folder`, in its order; yields a line for each shard.

    Every image is decoded once, and what was written is read back and compared. A finished shard stays if its bytes
    still equal the source's, so that a second call continues where the first one was stopped. Shards of a larger
    source that was packed there before are removed.

    Raises:
        DataError: naming a file that cannot be read or decoded, or a shard that reads back differently.
        OccupiedError: if the folder holds class folders.
        MachineError: if another process is preparing data there.
    """
    if (folder / "train").is_dir():
        raise OccupiedError(f"{folder} holds folders of files", "give another --data")
    with sole_writer(folder):
        yield from _pack(source, folder)


def _pack(source: Indices, folder: Path) -> Iterator[str]:
    shards: dict[str, list[Path]] = {}
    for split, index in zip(Indices._fields, source, strict=True):
        shards[split] = []
        for number, first in enumerate(range(0, len(index), IMAGES_PER_SHARD)):
            target = folder / f"{split}-{number:04d}.h5"
            part = Part(index, range(first, min(first + IMAGES_PER_SHARD, len(index))))
            yield _pack_shard(part, target)
            shards[split].append(target)
    _write_index(folder, source, shards)
    yield from _remove_others(folder, {path for part in shards.values() for path in part})
    digest = "-".join(index.digest for index in open_packed(folder, _num_classes(source)))
    yield f"{folder / INDEX}: {len(source.train):,} training and {len(source.val):,} validation images, {digest}"


def _remove_others(folder: Path, shards: Set[Path]) -> Iterator[str]:
    """Remove shards of an earlier source, which the index no longer lists; other files stay."""
    for path in sorted(folder.iterdir()):
        if SHARD.fullmatch(path.name) and path not in shards:
            try:
                read_shard(path)
            except DataError as error:
                yield f"{error.message}, and is no part of the data set: remove it"
            else:
                with storage(path):
                    path.unlink()
                yield f"{path}: removed, since the source has fewer images than before"


def _num_classes(source: Indices) -> int:
    return int(source.train.labels.max()) + 1


def _pack_shard(part: Part, target: Path) -> str:
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        lengths = np.fromiter(pool.map(part.index.size, part.members), np.int64, len(part.members))
        identity = part.identity(lengths)
        if _is_written(part, identity, lengths, target, pool):
            return f"{target}: prepared already"
        temporary = target.with_name(f".{target.name}.partial")
        try:
            with storage(target):
                offset = _create(temporary, lengths)
                digests = _copy(part, lengths, temporary, offset, pool)
                if not _has_digests(digests, lengths, temporary, offset, pool):
                    raise DataError(
                        f"{temporary}: what was written reads back differently", "check the disk, and prepare again"
                    )
                with h5py.File(temporary, "r+") as file:
                    file.attrs["identity"] = identity
                    file["sha256"][:] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
                _sync(temporary)
                (target.parent / INDEX).unlink(missing_ok=True)  # it lists the shard that is replaced
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return f"{target}: {len(lengths):,} images, {int(lengths.sum()):,} bytes, byte for byte the source's files"


def _is_written(
    part: Part, identity: str, lengths: npt.NDArray[np.int64], target: Path, pool: ThreadPoolExecutor
) -> bool:
    """Whether the shard's table, its bytes and the source's files agree."""
    with suppress(DataError):  # a shard that is absent or cannot be read is written anew
        shard = read_shard(target)
        return (
            shard.identity == identity
            and np.array_equal(shard.lengths, lengths)
            and part.digests(pool) == shard.digests
            and _has_digests(shard.digests, lengths, target, shard.offset, pool)
        )
    return False


def _create(path: Path, lengths: npt.NDArray[np.int64]) -> int:
    """Create an empty shard of full size, so that a full disk shows now; returns the offset of its first file."""
    total = int(lengths.sum())
    with h5py.File(path, "w") as file:
        _contiguous(file, "lengths", lengths)
        _contiguous(file, "sha256", np.zeros((len(lengths), 32), np.uint8))
        offset = _contiguous(file, "files", np.empty(0, np.uint8), num_bytes=total)
    with path.open("r+b") as raw:
        os.posix_fallocate(raw.fileno(), 0, offset + total)
    return offset


def _contiguous(parent: h5py.Group, name: str, values: npt.NDArray[Any], num_bytes: int | None = None) -> int:
    """Create a contiguous data set of `values`, or of unwritten bytes; returns its offset in the file."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)  # the same bytes at any time
    shape = values.shape if num_bytes is None else (num_bytes,)
    space = h5py.h5s.create_simple(shape)
    data = h5py.Dataset(h5py.h5d.create(parent.id, name.encode(), h5py.h5t.py_create(values.dtype), space, plist))
    if num_bytes is None:
        data[...] = values
    return int(data.id.get_offset())


def _copy(
    part: Part, lengths: npt.NDArray[np.int64], path: Path, offset: int, pool: ThreadPoolExecutor
) -> list[bytes]:
    """Copy all files; returns their digests."""
    digests: list[bytes] = []
    descriptor = os.open(path, os.O_WRONLY)
    try:
        with tqdm(total=len(lengths), unit="image", desc=path.name, disable=None) as bar:
            for start in range(0, len(lengths), _BLOCK):
                block = part.members[start : start + _BLOCK]
                files = list(pool.map(part.index.check, block))
                for member, data, length in zip(block, files, lengths[start:], strict=False):
                    if len(data) != length:
                        raise DataError(f"{part.index.place(member)}: changed while it was read", "prepare again")
                digests += pool.map(sha256, files)
                offset = _write_at(descriptor, np.concatenate(files), offset)
                bar.update(len(files))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digests


def _has_digests(
    digests: Sequence[bytes], lengths: npt.NDArray[np.int64], path: Path, offset: int, pool: ThreadPoolExecutor
) -> bool:
    """Whether the files in a shard, read from the disk, have these digests."""
    offsets = _offsets(lengths, offset)
    descriptor = os.open(path, os.O_RDONLY)

    def is_equal(number: int) -> bool:
        data = np.empty(int(lengths[number]), np.uint8)
        read_at([path], [descriptor], 0, int(offsets[number]), data)
        return sha256(data) == digests[number]

    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # from the disk, not from memory
        return all(pool.map(is_equal, range(len(digests))))
    finally:
        os.close(descriptor)


def _offsets(lengths: npt.NDArray[np.int64], offset: int) -> npt.NDArray[np.int64]:
    return offset + np.cumsum(lengths) - lengths


def _write_index(folder: Path, source: Indices, shards: Mapping[str, Sequence[Path]]) -> None:
    """Write the index of all shards from their own tables, atomically."""
    temporary = folder / f".{INDEX}.partial"
    try:
        with storage(folder / INDEX):
            with h5py.File(temporary, "w") as file:
                file.attrs["format"], file.attrs["num_classes"] = FORMAT, _num_classes(source)
                for split, index in zip(Indices._fields, source, strict=True):
                    group = file.create_group(split)
                    group.attrs["shards"] = [path.name for path in shards[split]]
                    for name, values in _tables(index, shards[split]).items():
                        _contiguous(group, name, values)
            _sync(temporary)
            temporary.replace(folder / INDEX)
    finally:
        temporary.unlink(missing_ok=True)


def _tables(index: ImageIndex, paths: Sequence[Path]) -> dict[str, npt.NDArray[Any]]:
    lengths, offsets = [], []
    for path in paths:
        with h5py.File(path, "r", locking=False) as file:
            lengths.append(file["lengths"][:])
            offsets.append(_offsets(lengths[-1], file["files"].id.get_offset()))
    counts = np.array([0, *map(len, lengths)], np.int64)
    return {
        "names": index.names,
        "ends": index.ends,
        "labels": index.labels,
        "firsts": np.cumsum(counts)[:-1],
        "offsets": np.concatenate(offsets),
        "lengths": np.concatenate(lengths),
    }


def _write_at(descriptor: int, data: Bytes, offset: int) -> int:
    """Write all of `data`; returns the offset after it."""
    rest = data.data
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + count, rest[count:]
    return offset


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
