"""Facts about a machine's accelerators that need no torch."""

import os
from pathlib import Path

from hpcai500.errors import MachineError

_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags in /proc/cpuinfo of x86 and Arm for convolutions and matrix products in bf16."""


def num_gpus() -> int:
    """NVIDIA GPUs that a process started here would see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() and part.strip() != "-1"])
    try:
        import pynvml

        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except Exception:  # no driver, no library: no GPU
        return 0


def native_precision(*, on_gpus: bool, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The precision that this machine's first GPU, or else its processor, computes fastest in.

    Raises:
        MachineError: if NVML does not report the kind of GPU.
    """
    if on_gpus:
        return gpu_precision(compute_capability())
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return "fp32"
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return "bf16" if _BF16_FLAGS & set(flags) else "fp32"


def gpu_precision(capability: tuple[int, int]) -> str:
    """The precision of a GPU's tensor cores: bf16 since Ampere, fp16 on Volta and Turing, else fp32."""
    return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"


def compute_capability() -> tuple[int, int]:
    try:
        import pynvml

        pynvml.nvmlInit()
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(pynvml.nvmlDeviceGetHandleByIndex(0))
    except Exception as error:  # any fault of a driver's library
        raise MachineError(f"NVML does not report the kind of GPU: {error}", "name a precision") from error
    return int(major), int(minor)
