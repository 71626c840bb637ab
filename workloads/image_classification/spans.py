"""Images that lie as stretches of bytes in a few large files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcai500.errors import DataError

from .data import ImageIndex
from .decoding import Bytes


class SpanIndex(ImageIndex):
    """One split; the images of each file follow those of the file before it.

    Descriptors are opened here and may cross a fork: reading at an offset moves no position.
    """

    remedy = "fetch it again"

    def __init__(
        self,
        root: Path,
        names: npt.NDArray[np.uint8],
        ends: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int16],
        *,
        files: Sequence[Path],
        firsts: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> None:
        super().__init__(root, names, ends, labels)
        self.files, self.firsts, self.offsets, self.lengths = files, firsts, offsets, lengths
        self._descriptors: list[int] = []
        for path in files:
            try:
                self._descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise DataError(
                    f"{path}: cannot be opened ({error.strerror})", "prepare the data set again"
                ) from error

    def file_of(self, index: int) -> int:
        """The number of the file that holds an image."""
        return int(np.searchsorted(self.firsts, index, side="right")) - 1

    def place(self, index: int) -> str:
        return f"{self.files[self.file_of(index)]}: {self.name(index)}"

    def size(self, index: int) -> int:
        return int(self.lengths[index])

    def read(self, index: int) -> Bytes:
        data = np.empty(int(self.lengths[index]), np.uint8)
        read_at(self.files, self._descriptors, self.file_of(index), int(self.offsets[index]), data)
        return data

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", ()):
            os.close(descriptor)


def read_at(files: Sequence[Path], descriptors: Sequence[int], number: int, offset: int, out: Bytes) -> None:
    """Fill `out` from `offset` of file `number`.

    Raises:
        DataError: naming a file that ends before.
    """
    rest = out.data
    while rest:
        try:
            count = os.preadv(descriptors[number], [rest], offset)
        except OSError as error:
            raise DataError(f"{files[number]}: cannot be read ({error.strerror})", "fetch it again") from error
        if not count:
            raise DataError(f"{files[number]}: is truncated at byte {offset:,}", "fetch or prepare it again")
        offset, rest = offset + count, rest[count:]
