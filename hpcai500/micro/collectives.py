"""Collective operations between ranks: latency, bandwidth, and whether the results are correct."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch

from hpcai500.errors import SpecError, nearest
from hpcai500.micro.launching import SIZES
from hpcai500.micro.sample import MicroResults, Sample, Skipped, Spread, rate, spread
from hpcai500.ranks.operations import Group, Operations

NAMES = ("all_reduce", "all_gather", "broadcast", "all_to_all")
_SHORTEST_SEC = 2e-3
_MOST_CALLS = 200
_MOST_BYTES = 64 << 20
"""Limit for the operands of one reading, in bytes."""
_FEWEST_READINGS = 5
_MOST_READINGS = 50


def bus_factor(name: str, num_ranks: int) -> float:
    """Ratio of bus bandwidth to algorithm bandwidth (NVIDIA/nccl-tests, doc/PERFORMANCE.md, "Summary")."""
    others = (num_ranks - 1) / num_ranks
    return {"all_reduce": 2 * others, "all_gather": others, "broadcast": 1.0, "all_to_all": others}[name]


def measure_collectives(
    ranks: Group,
    *,
    sizes: Sequence[int] = SIZES,
    budget_sec: float,
    names: Sequence[str] = NAMES,
    operations: Operations | None = None,
) -> MicroResults:
    """Measure each operation at each size within about `budget_sec`. All ranks call, and get the same results.

    By default, `operations` are those of the ranks' own library.

    Raises:
        SpecError: for an unknown operation.
    """
    for name in names:
        if name not in NAMES:
            raise SpecError(f"unknown collective operation {name!r}", nearest(name, NAMES))
    if ranks.size == 1:
        return MicroResults(skipped=tuple(Skipped(name=name, reason="only one rank", family=name) for name in names))
    operations = operations or ranks.operations()
    deadline = time.monotonic() + budget_sec
    cases = [(name, size) for name in names for size in sizes]
    found = MicroResults()
    for number, (name, size) in enumerate(cases):
        share = ranks.broadcast(max(0.0, deadline - time.monotonic()) / (len(cases) - number))
        found += _measure(ranks, operations, name, size, share)
    return found


class Reading(NamedTuple):
    seconds: float
    """Seconds per call, on this rank."""
    wrong: bool


def _measure(ranks: Group, operations: Operations, name: str, size: int, budget_sec: float) -> MicroResults:
    """Measure one operation at one size."""
    num_elements = max(1, size // 4)
    if name in ("all_gather", "all_to_all"):
        num_elements = math.ceil(num_elements / ranks.size) * ranks.size
    deadline = time.monotonic() + budget_sec
    seed = ranks.broadcast(time.time_ns() % 2**40)
    read(ranks, operations, name, num_elements, 1, seed)  # opens connections
    num_readings, readings = 0, list[Reading]()
    warm = read(ranks, operations, name, num_elements, 1, seed + 1)
    slowest = ranks.broadcast(max(ranks.gather(warm.seconds), default=0.0))
    fitting = max(1, _MOST_BYTES // (num_elements * 4))
    calls = min(_MOST_CALLS, fitting, max(1, math.ceil(_SHORTEST_SEC / slowest)))
    while num_readings < _MOST_READINGS:
        readings.append(read(ranks, operations, name, num_elements, calls, seed + 2 + num_readings))
        num_readings += 1
        # after every few readings the ranks agree whether there is time for more
        if num_readings % _FEWEST_READINGS == 0 and ranks.broadcast(time.monotonic() > deadline):
            break
    every = ranks.broadcast(ranks.gather(readings))
    seconds = [max(each.seconds for each in at_once) for at_once in zip(*every, strict=True)]
    wrong = [rank for rank, own in enumerate(every) if any(each.wrong for each in own)]
    return MicroResults(samples=tuple(_samples(name, size, num_elements * 4, ranks.size, seconds, wrong)))


def _samples(
    name: str, size: int, num_bytes: int, num_ranks: int, seconds: Sequence[float], wrong: Sequence[int]
) -> Iterator[Sample]:
    """Samples of time and of bus bandwidth. An operation ends when its last rank ends.

    `size` is the requested size, and `num_bytes` is that size after rounding up to parts of equal length.
    """
    title = name.replace("_", "-")
    detail = f"{num_bytes:,} B, {num_ranks} ranks"
    if wrong:
        detail += f": wrong on rank(s) {', '.join(map(str, wrong))}"

    def sample(title: str, metric: str, unit: Literal["s", "B/s"], found: Spread) -> Sample:
        return Sample(
            name=title,
            metric=f"{name}_{size}_{metric}",
            unit=unit,
            value=found.median,
            lower_quartile=found.lower_quartile,
            upper_quartile=found.upper_quartile,
            num_repeats=len(seconds),
            part="collectives",
            family=name,
            better="lower" if unit == "s" else "higher",
            detail=detail,
            bytes=float(num_bytes),
            size_bytes=size,
            correct=not wrong,
            wrong_ranks=tuple(wrong),
        )

    yield sample(title, "sec", "s", spread(seconds))
    bus = rate(num_bytes * bus_factor(name, num_ranks), seconds)
    yield sample(f"{title} bus", "bus_bytes_per_sec", "B/s", bus)


def read(ranks: Group, operations: Operations, name: str, num_elements: int, num_calls: int, seed: int) -> Reading:
    """Time `num_calls` in a row, each on its own operands, started by all ranks together. Then check the results."""
    base = random_base(num_elements, num_calls, seed, ranks.device)
    operands = list(operand(name, base, ranks.rank, ranks.size))
    run = getattr(operations, name)
    ranks.barrier()
    _synchronize(ranks.device)
    started = time.perf_counter()
    results = [run(tensor) for tensor in operands]
    _synchronize(ranks.device)
    seconds = (time.perf_counter() - started) / num_calls
    right = expected(name, base, ranks.rank, ranks.size)
    wrong = any(not torch.equal(result, should) for result, should in zip(results, right, strict=True))
    return Reading(seconds, wrong)


def random_base(num_elements: int, num_calls: int, seed: int, device: torch.device) -> torch.Tensor:
    """Whole numbers from 0 to 255, equal on all ranks, so that sums over 4,000 ranks are exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(256, (num_calls, min(num_elements, 1 << 20)), generator=generator, dtype=torch.float32)
    return drawn.repeat(1, -(-num_elements // drawn.shape[1]))[:, :num_elements].to(device)


def operand(name: str, base: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """The operands of `rank`, one row per call, which differ between ranks and between receivers."""
    if name == "all_gather":
        return base[:, : base.shape[1] // size] + rank
    if name == "all_to_all":
        receiver = torch.arange(size, dtype=base.dtype, device=base.device).repeat_interleave(base.shape[1] // size)
        return base + 3 * rank + receiver
    return base + rank


def expected(name: str, base: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """The results that `rank` should get, one row per call, computed without communication."""
    part = base.shape[1] // size
    ranks = torch.arange(size, dtype=base.dtype, device=base.device)
    if name == "all_reduce":
        return base * size + size * (size - 1) // 2
    if name == "broadcast":
        return base
    if name == "all_gather":
        return base[:, :part].repeat(1, size) + ranks.repeat_interleave(part)
    own = base[:, rank * part : (rank + 1) * part]
    return own.repeat(1, size) + 3 * ranks.repeat_interleave(part) + rank


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
