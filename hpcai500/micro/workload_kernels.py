"""The products and convolutions that a workload's training executes, each as a kernel."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from hpcai500.micro.compute import measure_kernels, unsupported_precisions
from hpcai500.micro.kernels import DTYPES, Kernel, normal
from hpcai500.micro.passes import synthetic_spec, trace_workload
from hpcai500.micro.sample import Coverage, MicroResults, Sample, Shape, Skipped
from hpcai500.micro.tracing import Operation, OperationCount, TensorSpec, Trace, by_flops, with_tensors

SHARE = 0.8
"""Share of a pass's FLOPs that the chosen operations cover."""
_TITLES = {"convolution": "conv", "convolution_backward": "conv backward", "mm": "product", "addmm": "product"}


def measure_workload(
    name: str, problem: str, device: torch.device, *, precision: str, budget_sec: float
) -> MicroResults:
    """Measure the operations of one workload that need most FLOPs, and their speed together.

    Operations are left out if the budget is used up. A slow trace leaves them at least half of it.

    Raises:
        SpecError: for an unknown workload or problem.
    """
    started = time.monotonic()
    refused = unsupported_precisions(device)
    if precision in refused:
        skipped = Skipped(name=f"{name} {problem} {precision}", reason=refused[precision], precision=precision)
        return MicroResults(skipped=(skipped,))
    spec = synthetic_spec(name, problem, device, "fp32")
    found = trace_workload(spec, device)
    chosen = list(choose(found))
    kernels = list(_numbered(kernel_of(operation, counted, precision) for operation, counted in chosen))
    left_sec = max(budget_sec / 2, budget_sec - (time.monotonic() - started))
    measured = measure_kernels(kernels, device, left_sec, overrun=False)
    by_metric = {sample.metric: sample for sample in measured.samples}
    prefix = f"{spec.workload.name.lower()[:40]}_{problem}"
    samples, shapes = [], []
    for kernel, (_, counted) in zip(kernels, chosen, strict=True):
        if kernel.metric not in by_metric:
            continue
        sample, metric = by_metric[kernel.metric], f"{prefix}.{kernel.metric}"
        shapes.append(Shape(metric=metric, count=counted.count, share=counted.count * counted.flops / found.flops))
        detail = f"{sample.detail}; {counted.count} per pass, {shapes[-1].share:.1%}"
        samples.append(sample.model_copy(update={"metric": metric, "detail": detail, "part": "workloads"}))
    left_out = measured.skipped
    if missed := len(kernels) - len(samples) - len(left_out):
        reason = f"{missed} of the {len(kernels)} heaviest shapes: no time left, give a larger --budget-sec"
        left_out += (Skipped(name=f"{spec.workload.name} {problem} {precision}", reason=reason, precision=precision),)
    coverage = Coverage(
        workload=spec.workload.name,
        problem=problem,
        precision=precision,
        num_samples=spec.micro_batch_size,
        pass_flops=float(found.flops),
        num_shapes=len(found.operations),
        share=sum(shape.share for shape in shapes),
        shapes=tuple(shapes),
        together=f"{prefix}_shapes_{precision}_flops" if shapes else "",
    )
    if samples:
        samples.append(_together(coverage, samples))
    return MicroResults(samples=tuple(samples), skipped=left_out, coverages=(coverage,))


def choose(found: Trace) -> Iterator[tuple[Operation, OperationCount]]:
    """The operations with the most FLOPs, until they cover `SHARE` of the pass."""
    covered = 0
    for operation, counted in by_flops(found):
        if covered >= SHARE * found.flops:
            return
        covered += counted.count * counted.flops
        yield operation, counted


def _together(coverage: Coverage, samples: list[Sample]) -> Sample:
    """FLOPS of all measured operations together, each as often as a pass executes it."""
    counts = [shape.count for shape in coverage.shapes]
    flops = sum(count * sample.flops for count, sample in zip(counts, samples, strict=True))

    def seconds(rates: Iterable[float]) -> float:
        return sum(count * sample.flops / rate for count, sample, rate in zip(counts, samples, rates, strict=True))

    return Sample(
        name="together",
        metric=coverage.together,
        unit="FLOPS",
        value=flops / seconds(sample.value for sample in samples),
        lower_quartile=flops / seconds(sample.lower_quartile for sample in samples),
        upper_quartile=flops / seconds(sample.upper_quartile for sample in samples),
        num_repeats=min(sample.num_repeats for sample in samples),
        part="workloads",
        better="higher",
        detail=f"{coverage.share:.0%} of a pass's FLOPs",
        precision=coverage.precision,
        flops=flops,
        correct=all(sample.correct for sample in samples),
    )


def kernel_of(operation: Operation, counted: OperationCount, precision: str) -> Kernel:
    """A kernel for `operation`, on new random operands of its shapes and layouts, in `precision`."""
    dtype = DTYPES[precision]
    operands = operation.operands

    def make(generator: torch.Generator) -> list[Any]:
        def draw(spec: TensorSpec) -> torch.Tensor:
            return normal(generator, spec.shape, dtype, last=spec.is_channels_last)

        return with_tensors(operation.arguments, draw)

    def check(_: list[Any], output: Any) -> bool:
        """Check only that every value is finite and some are not zero, unlike GEMM and convolution."""
        results = [each for each in tree_leaves(output) if isinstance(each, torch.Tensor)]
        return all(bool(torch.isfinite(each).all()) and bool(each.any()) for each in results)

    sizes = [math.prod(spec.shape) * spec.dtype.itemsize for spec in operands]
    return Kernel(
        name=shape_name(operation),
        family="shape",
        title=_TITLES.get(operation.name, operation.name),
        shape=", ".join(_shapes(operation)),
        precision=precision,
        measures="flops",
        flops=counted.flops,
        bytes=counted.bytes * dtype.itemsize // 4 if sizes else 0,  # traced in fp32
        make=make,
        run=lambda inputs: operation.function(*inputs),
        check=check,
    )


def shape_name(operation: Operation) -> str:
    """`conv.8x64x56x56.64x64x3x3.s1`: operands and stride, as part of a metric's name."""
    lists = [value for value in operation.arguments if isinstance(value, tuple) and not isinstance(value, TensorSpec)]
    name = operation.name.strip("_").replace("convolution", "conv")
    at = 1 if name == "conv_backward" else 0  # the bias's sizes come before the stride
    strides = [f"s{lists[at][0]}"] if name.startswith("conv") and len(lists) > at else []
    return ".".join([name, *_shapes(operation), *strides])[:60]


def _shapes(operation: Operation) -> list[str]:
    """The shapes of both operands, without a bias."""
    return ["x".join(map(str, spec.shape)) for spec in operation.operands if len(spec.shape) > 1][-2:]


def _numbered(kernels: Iterable[Kernel]) -> Iterator[Kernel]:
    """The kernels, with a number at the end of a name that occurs twice: they differ in padding, or in outputs."""
    seen: dict[str, int] = {}
    for kernel in kernels:
        seen[kernel.name] = seen.get(kernel.name, 0) + 1
        yield kernel._replace(name=f"{kernel.name}.{seen[kernel.name]}") if seen[kernel.name] > 1 else kernel
