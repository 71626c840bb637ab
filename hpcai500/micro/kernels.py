"""Kernels: what they compute, how much that is, and how a wrong result is told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional

DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
PRECISIONS = tuple(DTYPES)

_TOLERANCE = {"fp64": 1e-10, "fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2}
"""Largest error over the results' root mean square: a rounding of operands and of the result, with room."""


class Kernel(NamedTuple):
    name: str
    """Part of the metric's name: `gemm_2048`."""
    family: str
    """What is measured together, or shown together: `gemm`, `aibench`."""
    title: str
    shape: str
    precision: str
    """Empty where bytes alone count."""
    measures: Literal["flops", "bytes"]
    flops: int
    """Of one call, MAC = 2; 0 where they are not what limits it."""
    bytes: int
    """Operands read and results written, each once."""
    make: Callable[[torch.Generator], Any]
    """Fresh random operands."""
    run: Callable[[Any], torch.Tensor]
    check: Callable[[Any, torch.Tensor], bool]
    probes: tuple["Kernel", ...] = ()
    """Smaller ones, the smallest first, to estimate the time of this one by its FLOPs."""

    @property
    def label(self) -> str:
        return f"{self.title} {self.precision}".strip()

    @property
    def metric(self) -> str:
        parts = (self.name, self.precision, "flops" if self.measures == "flops" else "bytes_per_sec")
        return "_".join(part for part in parts if part)


def normal(
    generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, *, last: bool = False
) -> torch.Tensor:
    """Standard normal: neither zeros, which draw less power, nor denormals, which are slow. `last`: channels last."""
    drawn = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
    return drawn.contiguous(memory_format=torch.channels_last) if last else drawn


def close(result: torch.Tensor, expected: torch.Tensor, precision: str) -> bool:
    """Whether `result` is `expected`, in float64, to within what `precision` rounds."""
    result, expected = result.double().cpu(), expected.double().cpu()
    scale = expected.square().mean().sqrt().clamp(min=1e-30)
    worst = ((result - expected).abs().max() / scale).item()
    return worst <= _TOLERANCE[precision]  # a NaN is not


def gemm(size: int, precision: str, *, probes: bool = True) -> Kernel:
    """A square matrix product: `2 size^3` FLOPs; three matrices of traffic."""
    dtype = DTYPES[precision]

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        left, right = (normal(generator, (size, size), dtype) for _ in range(2))
        return left, right, torch.empty_like(left)

    def check(inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], output: torch.Tensor) -> bool:
        """Sixteen rows spread over the product, and its rows' sums in the direction of a random vector."""
        left, right, _ = inputs
        rows = torch.arange(0, size, max(1, size // 16), device=left.device)
        vector = torch.randn(size, dtype=torch.float64, device=left.device)
        rows_right = close(output[rows], left[rows].double() @ right.double(), precision)
        # Freivalds: C v against A (B v), which looks at every element of C
        projected = left.double() @ (right.double() @ vector)
        return rows_right and close(output.double() @ vector, projected, precision)

    return Kernel(
        name=f"gemm_{size}",
        family="gemm",
        title=f"GEMM {size}",
        shape=f"{size} x {size} by {size} x {size}",
        precision=precision,
        measures="flops",
        flops=2 * size**3,
        bytes=3 * size**2 * dtype.itemsize,
        make=make,
        run=lambda inputs: torch.mm(inputs[0], inputs[1], out=inputs[2]),
        check=check,
        probes=tuple(gemm(less, precision, probes=False) for less in sorted({256, size // 2}))
        if probes and size > 256
        else (),
    )


def convolution(
    num_samples: int, channels: int, size: int, precision: str, *, family: str = "convolution", probes: bool = True
) -> Kernel:
    """3 x 3, as many channels out as in, "same" padding, channels last: `2 * 9 * channels^2 * pixels` FLOPs."""
    is_own = family == "convolution"
    dtype = DTYPES[precision]
    elements = num_samples * channels * size**2
    smaller = ((32, 28), (channels, size))

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images = normal(generator, (num_samples, channels, size, size), dtype, last=True)
        return images, normal(generator, (channels, channels, 3, 3), dtype, last=True)

    def check(inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> bool:
        """One pixel of every sample, all channels; and its corner, where the padding counts."""
        images, weights = (each.double() for each in inputs)
        padded = functional.pad(images, (1, 1, 1, 1))
        middle = size // 2
        return all(
            close(
                output[:, :, at, at],
                torch.einsum("ncij,kcij->nk", padded[:, :, at : at + 3, at : at + 3], weights),
                precision,
            )
            for at in (0, middle)
        )

    return Kernel(
        name=f"convolution_{channels}" if is_own else f"{family}_convolution",
        family=family,
        title="convolution" if is_own else f"{family} convolution",
        shape=f"{num_samples} x {channels} x {size} x {size}, 3 x 3",
        precision=precision,
        measures="flops",
        flops=2 * 9 * channels * elements,
        bytes=(2 * elements + 9 * channels**2) * dtype.itemsize,
        make=make,
        run=lambda inputs: functional.conv2d(inputs[0], inputs[1], padding=1),
        check=check,
        probes=tuple(convolution(1, *less, precision, family="probe", probes=False) for less in smaller)
        if probes
        else (),
    )


def tiled(generator: torch.Generator, num_elements: int) -> torch.Tensor:
    """Random float32 values: 4 Mi of them are drawn, and repeated, since drawing takes longer than copying."""
    block = normal(generator, (min(num_elements, 1 << 22),))
    return block.repeat(-(-num_elements // len(block)))[:num_elements]


def copy(num_bytes: int) -> Kernel:
    """Memory to memory of one device: counted as bytes read plus bytes written."""

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        source = tiled(generator, num_bytes // 4)
        return source, torch.zeros_like(source)

    return Kernel(
        name="copy",
        family="copy",
        title="memory copy",
        shape=f"{num_bytes >> 20} MiB to another {num_bytes >> 20} MiB, read + written",
        precision="",
        measures="bytes",
        flops=0,
        bytes=2 * num_bytes,
        make=make,
        run=lambda inputs: inputs[1].copy_(inputs[0]),
        check=lambda inputs, output: torch.equal(inputs[0], output),
    )


def transfer(num_bytes: int, device: torch.device, *, to_device: bool) -> Kernel:
    """Between page-locked host memory and a GPU: each byte counts once."""

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = tiled(generator, num_bytes // 4)
        host = drawn.cpu().pin_memory()
        if to_device:
            return host, torch.zeros_like(drawn)
        return drawn, torch.zeros_like(host).pin_memory()

    def run(inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return inputs[1].copy_(inputs[0], non_blocking=True)

    def check(inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> bool:
        torch.cuda.synchronize(device)
        return torch.equal(inputs[0].cpu(), output.cpu())

    name = "host_to_device" if to_device else "device_to_host"
    return Kernel(
        name=name,
        family=name,
        title="host to device" if to_device else "device to host",
        shape=f"{num_bytes >> 20} MiB, page-locked",
        precision="",
        measures="bytes",
        flops=0,
        bytes=num_bytes,
        make=make,
        run=run,
        check=check,
    )


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Have fp32 mean fp32, and tf32 mean TF32; torch's own default lets convolutions use TF32 where fp32 is asked."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    benchmark = torch.backends.cudnn.benchmark
    for backend in backends:
        backend.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
