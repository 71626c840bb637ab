"""Batches read ahead by threads: HDF5 and the copies beneath it leave the interpreter, so no process is needed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key")
Batch = TypeVar("Batch")


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
