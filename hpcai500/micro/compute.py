"""Measuring a device's kernels: products and convolutions in each precision, memory, and AIBench's twelve."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from hpcai500.errors import MachineError, SpecError, nearest
from hpcai500.micro.aibench import twelve
from hpcai500.micro.kernels import PRECISIONS, Kernel, arithmetic, convolution, copy, gemm, transfer
from hpcai500.micro.sample import MicroResults, Sample, Skipped, Spread, rate
from hpcai500.micro.timing import repeat, time_calls

FAMILIES = ("gemm", "convolution", "copy", "host_to_device", "device_to_host", "aibench")

_PATIENCE_SEC = 1.0
"""A kernel is skipped if one call would take longer than this on an idle device.

Neither the budget nor other processes matter, so that all nodes measure the same kernels.
"""
_PROBES = 5
"""Calls of a smaller kernel from which a larger one's time is estimated. On a busy machine, some are delayed."""


class Sizes(NamedTuple):
    """Sizes of kernels: larger than a CPU's caches, and enough to fill a GPU."""

    gemm: tuple[int, ...]
    conv_samples: int
    copy_bytes: int


CPU = Sizes((1024, 2048), 8, 256 << 20)
GPU = Sizes((4096, 8192), 256, 1 << 30)


def find_device(name: str) -> torch.device:
    """The device with this name: `cpu`, `cuda`, `cuda:1`.

    Raises:
        SpecError: for another name.
        MachineError: if this machine has no such GPU.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"unknown device {name!r}", "choose from cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MachineError(f"no GPU {name!r}: torch sees {torch.cuda.device_count()}", "use --device cpu")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device


def measure_compute(
    device: str,
    *,
    budget_sec: float,
    precisions: Sequence[str] = PRECISIONS,
    names: Collection[str] | None = None,
) -> MicroResults:
    """Measure the kernels of the families `names` (all of `FAMILIES` by default) within about `budget_sec`.

    Raises:
        SpecError: for an unknown family or precision.
        MachineError: if this machine has no such device.
    """
    for name in [*(names or ())]:
        if name not in FAMILIES:
            raise SpecError(f"unknown kernels {name!r}", nearest(name, FAMILIES))
    for precision in precisions:
        if precision not in PRECISIONS:
            raise SpecError(f"unknown precision {precision!r}", nearest(precision, PRECISIONS))
    found = find_device(device)
    kernels = [k for k in standard_kernels(found, precisions) if names is None or k.family in names]
    skipped = tuple(s for s in unsupported(found, precisions) if names is None or s.family in names)
    return MicroResults(skipped=skipped) + measure_kernels(kernels, found, budget_sec)


def standard_kernels(device: torch.device, precisions: Sequence[str]) -> Iterator[Kernel]:
    """The kernels that `device` supports."""
    on_gpu = device.type == "cuda"
    sizes = GPU if on_gpu else CPU
    refused = unsupported_precisions(device)
    for precision in (each for each in precisions if each not in refused):
        yield from (gemm(size, precision) for size in sizes.gemm)
        yield convolution(sizes.conv_samples, 256, 28, precision)
    yield copy(sizes.copy_bytes)
    if on_gpu:
        yield from (transfer(256 << 20, device, to_device=to_device) for to_device in (True, False))
    yield from twelve(on_gpu=on_gpu)


def unsupported(device: torch.device, precisions: Sequence[str]) -> Iterator[Skipped]:
    """The kernels that `device` does not support."""
    if device.type == "cpu":
        for family in ("host_to_device", "device_to_host"):
            yield Skipped(name=family, reason="no GPU", family=family)
    reasons = unsupported_precisions(device)
    for precision in (each for each in precisions if each in reasons):
        for family in ("gemm", "convolution"):
            name = f"{family} {precision}"
            yield Skipped(name=name, reason=reasons[precision], family=family, precision=precision)


def unsupported_precisions(device: torch.device) -> dict[str, str]:
    """Each precision that `device` lacks, with the reason."""
    if device.type == "cpu":
        return {"tf32": "a processor has no TF32"}
    reasons = {}
    if torch.cuda.get_device_capability(device)[0] < 8:
        reasons["tf32"] = "needs compute capability 8.0 or later"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        reasons["bf16"] = "needs compute capability 8.0 or later"
    return reasons


def measure_kernels(
    kernels: Sequence[Kernel], device: torch.device, budget_sec: float, *, overrun: bool = True
) -> MicroResults:
    """Measure each kernel with an equal share of the remaining budget.

    Once the budget is used, the rest are measured as briefly as possible; without `overrun` they are left out.
    """
    deadline = time.monotonic() + budget_sec
    found = MicroResults()
    for number, kernel in enumerate(kernels):
        share = max(0.0, deadline - time.monotonic()) / (len(kernels) - number)
        if not (share or overrun) and number:
            break
        with torch.no_grad(), arithmetic(kernel.precision):
            found += _measured_or_skipped(kernel, device, share)
    return found


def _measured_or_skipped(kernel: Kernel, device: torch.device, share_sec: float) -> MicroResults:
    try:
        if _expected_sec(kernel, device) > _PATIENCE_SEC:
            reason = f"one call would take more than {_PATIENCE_SEC:g} s on this device"
            return _skipped(kernel, reason)
        return MicroResults(samples=(measure_kernel(kernel, device, share_sec),))
    except torch.OutOfMemoryError:
        return _skipped(kernel, "the device has too little memory")
    except NotImplementedError as error:
        return _skipped(kernel, str(error).splitlines()[0][:120])


def _skipped(kernel: Kernel, reason: str) -> MicroResults:
    skipped = Skipped(
        name=kernel.label, reason=reason, family=kernel.family, precision=kernel.precision, metric=kernel.metric
    )
    return MicroResults(skipped=(skipped,))


def _expected_sec(kernel: Kernel, device: torch.device) -> float:
    """Seconds for one call on an idle device, estimated from smaller kernels; 0 if there are none.

    If overhead of a small kernel makes the estimate too long, the next larger one is tried.
    """
    expected = 0.0
    for probe in kernel.probes:
        expected = _fastest_sec(probe, device) * kernel.flops / probe.flops
        if expected <= _PATIENCE_SEC:
            break
    return expected


def _fastest_sec(kernel: Kernel, device: torch.device) -> float:
    """Seconds of the fastest of six calls, or of at least two if they are slow. The first also picks algorithms."""
    run = partial(kernel.run, kernel.make(torch.Generator(device).manual_seed(0)))
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) <= _PROBES and sum(seconds) < _PATIENCE_SEC):
        seconds.append(_undisturbed_sec(run, device))
    return min(seconds)


def _undisturbed_sec(call: Callable[[], object], device: torch.device) -> float:
    """Seconds for one call. On a CPU, this thread's CPU time, so that waiting for a core does not count."""
    if device.type != "cpu":
        return time_calls(call, 1, device)
    started = time.thread_time()
    call()
    return time.thread_time() - started


def measure_kernel(kernel: Kernel, device: torch.device, budget_sec: float) -> Sample:
    timed = repeat(kernel.make, kernel.run, kernel.check, device, budget_sec)
    amount = kernel.flops if kernel.measures == "flops" else kernel.bytes
    found: Spread = rate(amount, timed.seconds)
    return Sample(
        name=kernel.title,
        metric=kernel.metric,
        unit="FLOPS" if kernel.measures == "flops" else "B/s",
        value=found.median,
        lower_quartile=found.lower_quartile,
        upper_quartile=found.upper_quartile,
        num_repeats=len(timed.seconds),
        part="kernels",
        family=kernel.family,
        better="higher",
        detail=kernel.shape if timed.correct else f"{kernel.shape}: the result is wrong",
        precision=kernel.precision,
        flops=float(kernel.flops),
        bytes=float(kernel.bytes),
        correct=timed.correct,
    )
