"""Tasks in several processes, with results in order; without processes if there are few bytes."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from hpcai500.errors import MachineError

MIN_POOL_BYTES = 512 * 2**20
"""Below this, starting processes takes longer than the work."""


def run_tasks(tasks: Sequence[Callable[[], Any]], *, num_bytes: int) -> Iterator[Any]:
    """Results of `tasks` (picklable), in order. `num_bytes` is the size of the data of all tasks together.

    Raises:
        HpcAi500Error: as a task raised it, in whichever process.
        MachineError: if a process died.
    """
    num_processes = min(len(os.sched_getaffinity(0)), len(tasks))
    if num_processes < 2 or num_bytes < MIN_POOL_BYTES:
        yield from (task() for task in tasks)
        return
    # Spawned, since a fork would take HDF5's locks and handles along.
    with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending: deque[Future[Any]] = deque()
        try:
            for task in tasks:
                pending.append(pool.submit(task))
                if len(pending) > 2 * num_processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise MachineError("a worker process died", "was it out of memory? try fewer cores (taskset)") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
