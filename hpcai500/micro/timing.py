"""Timing calls of a kernel: warmed up, on new data for each set of repetitions, synchronised at each reading."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

Inputs = Any

SHORTEST_SEC = 1e-3
"""Least duration of one reading. Shorter calls are repeated, so that latencies of clock and launch are small."""
_READINGS_A_SET = 4
_FEWEST_READINGS = 4
_MOST_READINGS = 200
_MOST_CALLS = 10_000


class CallTimes(NamedTuple):
    seconds: list[float]
    """Seconds per call, for each reading."""
    correct: bool


def repeat(
    make: Callable[[torch.Generator], Inputs],
    run: Callable[[Inputs], Any],
    check: Callable[[Inputs, Any], bool],
    device: torch.device,
    budget_sec: float,
) -> CallTimes:
    """Time `run` until `budget_sec` is used, at least four times.

    `check` checks one result of each set of data. A wrong one ends the measurement.
    """
    deadline = time.monotonic() + budget_sec
    generator = torch.Generator(device).manual_seed(time.time_ns() % 2**63)
    inputs = make(generator)
    correct = check(inputs, run(inputs))  # the first call also picks algorithms and fills caches
    single = time_calls(partial(run, inputs), 1, device)
    calls = min(_MOST_CALLS, max(1, math.ceil(SHORTEST_SEC / max(single, 1e-9))))
    seconds: list[float] = []
    while len(seconds) < _MOST_READINGS and correct:
        seconds += [time_calls(partial(run, inputs), calls, device) for _ in range(_READINGS_A_SET)]
        if time.monotonic() > deadline and len(seconds) >= _FEWEST_READINGS:
            break
        inputs = make(generator)
        correct = check(inputs, run(inputs))
    return CallTimes(seconds or [single], correct)


def time_calls(call: Callable[[], Any], num_calls: int, device: torch.device) -> float:
    """Seconds per call, over `num_calls` in a row: by CUDA events on a GPU, otherwise by the host's clock."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(num_calls):
            call()
        return (time.perf_counter() - started) / num_calls
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    start.record()
    for _ in range(num_calls):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / num_calls
