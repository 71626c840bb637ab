"""Pairs that alternate block by block, so that a machine that slows down slows both."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

NUM_BLOCKS = 9


class Row(NamedTuple):
    what: str
    ours: str
    alternative: str
    ratio: str
    goal: str


def turns(ours: Callable[[], None], other: Callable[[], None]) -> list[tuple[float, float]]:
    """Seconds of each in alternating blocks."""
    times: list[tuple[float, float]] = []
    for block in range(NUM_BLOCKS + 1):
        order = (ours, other) if block % 2 else (other, ours)
        taken = {}
        for function in order:
            start = time.perf_counter()
            function()
            taken[function] = time.perf_counter() - start
        times.append((taken[ours], taken[other]))
    return times[1:]  # the first block warms up


def paired(ours: Callable[[], None], other: Callable[[], None]) -> tuple[float, float, str]:
    """Median seconds of each, and the ratio with its quartiles."""
    times = turns(ours, other)
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    return first, second, ratio(times)


def ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """The median ratio of the first to the second, with its quartiles."""
    low, middle, high = statistics.quantiles([first / second for first, second in pairs], n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"
