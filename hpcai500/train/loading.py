"""A data loader for map-style samples, with processes, pinned memory, and errors that stay one line."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from hpcai500.errors import HpcAi500Error
from hpcai500.train.data_tools import forbid, forbidden_packages
from hpcai500.train.preemption import leave_signals_to_parent
from hpcai500.train.ring import FillBatch, Ring, RingBatch

ReadBatch = Callable[[Sequence[Any]], Any]
"""A function from a list of keys (samples) to one collated batch. It must be picklable."""


_PREFETCH = 2
"""Batches that each process prepares in advance."""
_IN_USE = 3
"""Batches that may be pinned, trained on or released at the same time."""


class _Batches(Dataset[Any]):
    """Whole batches. An expected error is returned as a value, since the loader would wrap it in a traceback."""

    def __init__(self, read_batch: ReadBatch, ring: Ring | None) -> None:
        self._read_batch, self._ring = read_batch, ring

    def __getitems__(self, wanted: tuple[int | None, Sequence[Any]]) -> Any:
        slot, keys = wanted
        try:
            if self._ring is None or slot is None:
                return self._read_batch(keys)
            reader: FillBatch = self._read_batch  # type: ignore[assignment]
            return RingBatch(self._ring, slot, reader.fill(keys, self._ring.memory[slot]))
        except HpcAi500Error as error:
            return error


class _Schedule:
    """The loader's batch sampler: lists of keys, replaced in each epoch, each with a slot of the ring."""

    def __init__(self, ring: Ring | None) -> None:
        self.batches: Sequence[Sequence[Any]] = []
        self._ring = ring

    def __iter__(self) -> Iterator[tuple[int | None, Sequence[Any]]]:
        if self._ring:
            self._ring.reclaim()  # the processes have dropped the batches of an earlier reader by now
        for keys in self.batches:
            yield self._ring.give() if self._ring else None, keys

    def __len__(self) -> int:
        return len(self.batches)


class BatchTimer:
    """An iterator over batches that measures how long its user waits, by the host's clock only."""

    def __init__(self, batches: Iterable[Any], waited_sec: float = 0.0) -> None:
        self._batches = iter(batches)
        self.waited_sec = waited_sec

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        started = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.waited_sec += time.perf_counter() - started


class Loader:
    """Reads batches with `read_batch`, in `num_workers` processes that live as long as the loader.

    With `batch_bytes`, the most that a batch has, `read_batch` is also a `FillBatch`, and memory is reused.
    """

    def __init__(self, read_batch: ReadBatch, *, num_workers: int, pin_memory: bool, batch_bytes: int = 0) -> None:
        self._read_batch = read_batch
        num_slots = _PREFETCH * num_workers + _IN_USE
        self._ring = Ring(num_slots, batch_bytes) if num_workers and batch_bytes else None
        self._schedule = _Schedule(self._ring)
        self._loader = DataLoader(
            _Batches(read_batch, self._ring),
            batch_sampler=self._schedule,  # type: ignore[arg-type]
            collate_fn=_identity,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            prefetch_factor=_PREFETCH if num_workers else None,
            worker_init_fn=partial(_start_process, forbidden=forbidden_packages()),
            generator=torch.Generator(),  # draws nothing from the run's own, so that a resumed run is the same
        )

    def read(self, batches: Sequence[Sequence[Any]]) -> Iterator[Any]:
        """The batches, in order.

        Raises:
            HpcAi500Error: as `read_batch` raised it, in any process.
        """
        self._schedule.batches = batches
        for batch in self._loader:
            if isinstance(batch, HpcAi500Error):
                raise batch
            yield self._read_batch.batch(batch.memory, batch.rest) if isinstance(batch, RingBatch) else batch  # type: ignore[attr-defined]
            del batch  # frees its slot while the next one is read


def _start_process(_: int, *, forbidden: tuple[str, ...]) -> None:
    leave_signals_to_parent()
    for package in forbidden:  # a spawned process does not inherit the guard
        forbid(package)


def _identity(batch: Any) -> Any:
    return batch


def choose_num_workers(wanted: int, device: torch.device, local_size: int) -> int:
    """Processes (or threads) that load data: `wanted`, or for -1 a number that suits the device, at most 8.

    With a GPU, there is one per core that the rank leaves idle. On a CPU, no core is idle, but one core that decodes
    feeds more than 32 that train. So there is one loader per 32 threads, and none for a rank with one thread.
    """
    if wanted >= 0:
        return wanted
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return min(8, max(1, threads // 32)) if threads > 1 else 0
    return max(0, min(8, len(os.sched_getaffinity(0)) // local_size - 1))


def pins_memory(device: torch.device) -> bool:
    return device.type == "cuda"
