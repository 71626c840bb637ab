"""Batches read ahead by threads: HDF5 and copies release the interpreter lock, so that no processes are needed."""

import math
import mmap
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

_PAGE = mmap.PAGESIZE

Key = TypeVar("Key")
Batch = TypeVar("Batch")


def page_aligned(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Uninitialised memory aligned to pages, to which the kernel copies a file twice as fast."""
    size = math.prod(shape)
    memory = np.empty(size + _PAGE // 4, np.float32)
    start = -memory.ctypes.data % _PAGE // 4
    return memory[start : start + size].reshape(shape)


class Buffers:
    """Memory of batches, reused once no tensor holds it: touching fresh pages costs more than reading.

    Page-locked memory, from which a GPU fetches, is kept by torch in the same way, until its copies are done.
    """

    def __init__(self, *, pin: bool) -> None:
        self._pin = pin
        self._free: defaultdict[tuple[int, ...], list[npt.NDArray[np.float32]]] = defaultdict(list)

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A float32 tensor of `shape`, of undefined values."""
        if self._pin:
            return torch.empty(shape, pin_memory=True)
        free = self._free[shape]
        try:
            memory = free.pop()
        except IndexError:
            memory = page_aligned(shape)
        view = memory[...]  # the tensor and its own views hold this object, and nobody else does
        weakref.finalize(view, free.append, memory).atexit = False
        return torch.from_numpy(view)


class ReadAhead(Generic[Key, Batch]):
    """Reads batches by `read_batch` in `num_threads` threads, one more ahead than there are threads."""

    def __init__(self, read_batch: Callable[[Sequence[Key]], Batch], *, num_threads: int) -> None:
        self._read_batch, self._num_threads = read_batch, num_threads

    def read(self, batches: Sequence[Sequence[Key]]) -> Iterator[Batch]:
        """The batches, in order. The threads end with the iterator, finished or not.

        Raises:
            DataError: as `read_batch` raised it, when its batch is due.
        """
        with ThreadPoolExecutor(self._num_threads, thread_name_prefix="read-ahead") as pool:
            pending: deque[Future[Batch]] = deque()
            try:
                for keys in batches:
                    pending.append(pool.submit(self._read_batch, keys))
                    if len(pending) > self._num_threads + 1:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
