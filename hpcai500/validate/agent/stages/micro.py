"""Kernels on every device of every node: speed compared with peers, and correctness."""

from collections.abc import Iterator

from hpcai500.system.devices import native_precision, num_gpus
from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation, Trouble

BUDGET_SEC = {1: 8.0, 2: 60.0, 3: 120.0}
"""Time for one device, by level."""
_KERNELS = ("gemm", "convolution", "copy", "host_to_device", "device_to_host")
_ON_PROCESSORS = ("fp64", "fp32")
"""Precisions on a CPU; bf16 is added if it has instructions for it, without which it can take 100 times as long."""
_LARGEST_ON_PROCESSORS_FLOPS = 8e9
"""Limit that keeps a call far below the time at which it is skipped: all nodes should measure the same kernels."""
_EXACT_SIZE = 512
_EXACT_REPEATS = {1: 4, 2: 32, 3: 64}
_LARGEST_FACTOR = 8
"""Sums of 512 products of whole numbers up to 8 stay below 2**24: exact in fp32, whatever the order of addition."""


def run(seat: Seat) -> Iterator[Observation]:
    """All GPUs of the node at once, as in training; then its CPUs. All nodes at the same time."""
    gpus = [(f"cuda:{index}",) for index in range(num_gpus())]
    yield from run_children(seat, "micro", gpus, in_step="GPUs")
    seat.step("micro", "processors")
    yield from run_children(seat, "micro", [("cpu",)], in_step="processors")


def measure(seat: Seat, device: str) -> Iterator[Observation | None]:
    """In a child process, on one device."""
    from hpcai500.micro.compute import find_device, measure_kernels, standard_kernels
    from hpcai500.micro.kernels import PRECISIONS

    name = device.replace("cuda:", "gpu") if device != "cpu" else ""
    yield from exact_products(seat, device, name)
    yield None
    where = find_device(device)
    on_processor = (*_ON_PROCESSORS, "bf16") if native_precision(on_gpus=False) == "bf16" else _ON_PROCESSORS
    kernels = [
        kernel
        for kernel in standard_kernels(where, PRECISIONS if name else on_processor)
        if kernel.family in _KERNELS and (name or kernel.flops <= _LARGEST_ON_PROCESSORS_FLOPS)
    ]
    findings = measure_kernels(kernels, where, BUDGET_SEC[seat.plan.level])
    for skipped in findings.skipped:
        yield Trouble(
            stage="micro", nodes=(seat.node,), device=name, kind="failed", severity="warn",
            metric=skipped.metric, message=f"{skipped.name} is not measured: {skipped.reason}",
            remedy="if other nodes measure it, compare hardware, clocks and libraries with theirs, and look for "
            "processes that hold the device's memory (nvidia-smi)",
        )  # fmt: skip
    for sample in findings.samples:
        if sample.correct is False:
            yield _wrong(seat, name, sample.metric, f"{sample.name} gives a wrong result: {sample.detail}")
        yield Measurement(
            stage="micro", metric=sample.metric, unit=sample.unit, value=sample.value, better=sample.better,
            nodes=(seat.node,), device=name, detail=sample.detail,
        )  # fmt: skip


def exact_products(seat: Seat, device: str, name: str) -> Iterator[Observation]:
    """Matrix products of random small whole numbers, compared bit for bit with 64-bit integers on the host."""
    import numpy as np
    import torch

    random = np.random.default_rng()
    wrong = 0
    for _ in range(_EXACT_REPEATS[seat.plan.level]):
        left, right = random.integers(-_LARGEST_FACTOR, _LARGEST_FACTOR + 1, (2, _EXACT_SIZE, _EXACT_SIZE))
        product = torch.matmul(
            torch.from_numpy(left).to(device, torch.float32), torch.from_numpy(right).to(device, torch.float32)
        )
        wrong += int((product.cpu().numpy().astype(np.int64) != left @ right).any())
    if wrong:
        yield _wrong(seat, name, "exact_products", "matrix products of whole numbers are wrong")
    yield Measurement(
        stage="micro", metric="exact_products", unit="", value="wrong" if wrong else "right", better="same",
        nodes=(seat.node,), device=name, detail=f"{wrong} of {_EXACT_REPEATS[seat.plan.level]} wrong",
    )  # fmt: skip


def _wrong(seat: Seat, name: str, metric: str, message: str) -> Trouble:
    remedy = "drain the node and test its memory and processors: nothing that it computes can be trusted"
    return Trouble(
        stage="micro", nodes=(seat.node,), device=name, kind="wrong_result", metric=metric, message=message,
        remedy=remedy,
    )  # fmt: skip
