"""Kernels: what they compute, their FLOPs and bytes, and how to check their results."""

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
"""Largest error divided by the root mean square of the results: rounding of operands and result, with a margin."""


class Kernel(NamedTuple):
    name: str
    """Part of the metric's name: `gemm_2048`."""
    family: str
    """Kernels that are measured or shown together: `gemm`, `aibench`."""
    title: str
    shape: str
    precision: str
    """Empty if only bytes count."""
    measures: Literal["flops", "bytes"]
    flops: int
    """FLOPs per call, MAC = 2; 0 if they do not limit it."""
    bytes: int
    """Bytes per call: operands read and results written, each once."""
    make: Callable[[torch.Generator], Any]
    """A function that makes new random operands."""
    run: Callable[[Any], torch.Tensor]
    check: Callable[[Any, torch.Tensor], bool]
    probes: tuple["Kernel", ...] = ()
    """Smaller kernels, the smallest first, from which this one's time is estimated by FLOPs."""

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
    """Standard normal values, since zeros draw less power and denormals are slow. `last`: channels last."""
    drawn = torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
    return drawn.contiguous(memory_format=torch.channels_last) if last else drawn


def close(result: torch.Tensor, expected: torch.Tensor, precision: str) -> bool:
    """Whether `result` equals `expected`, in float64, within the rounding of `precision`."""
    result, expected = result.double().cpu(), expected.double().cpu()
    scale = expected.square().mean().sqrt().clamp(min=1e-30)
    worst = ((result - expected).abs().max() / scale).item()
    return worst <= _TOLERANCE[precision]  # false for a NaN


def gemm(size: int, precision: str, *, probes: bool = True) -> Kernel:
    """A square matrix product with `2 size^3` FLOPs and three matrices of traffic."""
    dtype = DTYPES[precision]

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        left, right = (normal(generator, (size, size), dtype) for _ in range(2))
        return left, right, torch.empty_like(left)

    def check(inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], output: torch.Tensor) -> bool:
        """Compare sixteen rows of the product, and its product with a random vector."""
        left, right, _ = inputs
        rows = torch.arange(0, size, max(1, size // 16), device=left.device)
        vector = torch.randn(size, dtype=torch.float64, device=left.device)
        rows_right = close(output[rows], left[rows].double() @ right.double(), precision)
        # Freivalds: C v and A (B v), which depends on every element of C
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
    """A 3 x 3 convolution with equal channels in and out, "same" padding, channels last.

    It has `2 * 9 * channels^2 * pixels` FLOPs.
    """
    is_own = family == "convolution"
    dtype = DTYPES[precision]
    elements = num_samples * channels * size**2
    smaller = ((32, 28), (channels, size))

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images = normal(generator, (num_samples, channels, size, size), dtype, last=True)
        return images, normal(generator, (channels, channels, 3, 3), dtype, last=True)

    def check(inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> bool:
        """Compare all channels of two pixels per sample, in the middle and in the corner, where padding matters."""
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
    """Random float32 values. 4 Mi are drawn and then repeated, since drawing takes longer than copying."""
    block = normal(generator, (min(num_elements, 1 << 22),))
    return block.repeat(-(-num_elements // len(block)))[:num_elements]


def copy(num_bytes: int) -> Kernel:
    """A copy within the memory of one device, counted as bytes read plus bytes written."""

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
    """A transfer between page-locked host memory and a GPU. Each byte counts once."""

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
    """Let fp32 mean fp32, and tf32 mean TF32. By torch's default, convolutions in fp32 use TF32."""
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
