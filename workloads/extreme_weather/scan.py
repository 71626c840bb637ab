"""One pass over whole files: moments per channel, and a digest that is independent of the layout on disk."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpcai500.errors import DataError

from .moments import Moments, moments_of, no_moments, stacked
from .storage import Block, read_block, readable

_HASH_BYTES = 16 * 2**20


class BlockScan(NamedTuple):
    digests: list[list[bytes]]
    """SHA-256 of each plane of decoded values: frames of channels."""
    moments: Moments


class FileScan(NamedTuple):
    content_sha256: str
    """SHA-256 over the digests of all planes and the boxes: equal for equal values in any layout."""
    moments: Moments


def scan_block(block: Block) -> BlockScan:
    """Raise DataError for a value that is not finite, with its frame and channel."""
    num_frames = block.end - block.first
    digests: list[list[bytes]] = [[] for _ in range(num_frames)]
    moments: list[Moments] = []
    for channels, values in read_block(block):
        for index, channel in enumerate(range(channels.start, channels.stop)):
            total = no_moments(1)
            for frame, plane in enumerate(values[:, index]):
                digests[frame].append(plane_digest(plane))
                found = moments_of(plane)
                if not np.isfinite(found.mean[0]):
                    raise _not_finite(block.path, block.first + frame, channel, plane)
                total = total.merged(found)
            moments.append(total)
    return BlockScan(digests, stacked(moments))


def scan_file(boxes: npt.NDArray[np.int32], scans: Iterator[BlockScan]) -> FileScan:
    """The whole of a file's blocks, in order."""
    digests: list[list[bytes]] = []
    moments: Moments | None = None
    for scan in scans:
        digests += scan.digests
        moments = moments.merged(scan.moments) if moments else scan.moments
    assert moments
    return FileScan(content_digest(digests, boxes), moments)


def plane_digest(plane: npt.NDArray[np.float32]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(plane, "<f4").data).digest()


def content_digest(digests: list[list[bytes]], boxes: npt.NDArray[np.int32]) -> str:
    total = hashlib.sha256(b"".join(digest for frame in digests for digest in frame))
    total.update(np.ascontiguousarray(boxes, "<i4").data)
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    total = hashlib.sha256()
    with readable(path), path.open("rb") as file:
        while part := file.read(_HASH_BYTES):
            total.update(part)
    return total.hexdigest()


def _not_finite(path: Path, frame: int, channel: int, plane: npt.NDArray[np.float32]) -> DataError:
    row, column = np.argwhere(~np.isfinite(plane))[0]
    value = plane[row, column]
    return DataError(f"{path}: images[{frame}, {channel}, {row}, {column}] is {value}", "fetch the file again")
