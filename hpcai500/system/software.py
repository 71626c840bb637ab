"""Layers 2 to 5: operating system, communication and acceleration libraries, framework."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from hpcai500.system.environment import ACCELERATION, COMMUNICATION, allowed
from hpcai500.system.programs import first_line_of

_BUILD_KEYS = re.compile(
    r"USE_\w+|PERF_WITH_\w+|BLAS_INFO|LAPACK_INFO|BUILD_TYPE|COMMIT_SHA|CUDA_VERSION|CUDNN_VERSION"
)
"""Build options that are recorded. Compilers and their flags are not: they contain paths of the builder."""


def operating_system() -> dict[str, Any]:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "distribution": release.get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "c_library": " ".join(platform.libc_ver()),
        "gpu_driver": _gpu_driver(),
    }


def communication_libraries() -> dict[str, Any]:
    import torch

    has_nccl = torch.distributed.is_nccl_available() and torch.cuda.is_available()
    return {
        "nccl": ".".join(str(part) for part in torch.cuda.nccl.version()) if has_nccl else None,
        "gloo": torch.distributed.is_gloo_available(),
        "mpi": first_line_of("mpirun", "--version"),
        "ucx": first_line_of("ucx_info", "-v"),
        "libfabric": first_line_of("fi_info", "--version"),
        "environment": allowed(COMMUNICATION, os.environ),
    }


def acceleration_libraries() -> dict[str, Any]:
    import torch

    on_gpu = torch.cuda.is_available()
    shown = torch.__config__.show()
    return {
        "cuda": torch.version.cuda if on_gpu else None,
        "hip": torch.version.hip if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "cublas": _cublas() if on_gpu else None,
        "mkl": _found(r"oneAPI Math Kernel Library Version (\S+)", shown),
        "onednn": _found(r"MKL-DNN v(\S+)", shown),
        "openmp": _found(r"OpenMP (\d+)", shown),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment": allowed(ACCELERATION, os.environ),
    }


def framework() -> dict[str, Any]:
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "horovod": _version("horovod"),
        "build": build_options(torch.__config__.show()),
    }


def build_options(shown: str) -> dict[str, str]:
    """How torch was built, from the text of `torch.__config__.show()`."""
    settings = _found(r"Build settings: (.*)", shown) or ""
    pairs = (part.strip().split("=", 1) for part in settings.split(", ") if "=" in part)
    return {key: value for key, value in pairs if _BUILD_KEYS.fullmatch(key)}


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cublas() -> str | None:
    """Version of the package from which torch loads cuBLAS; None if torch uses the system's."""
    names = {dist.name: dist.version for dist in distributions() if dist.name.startswith("nvidia-cublas")}
    return next(iter(sorted(names.values(), reverse=True)), None)


def _gpu_driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no GPU, no driver, no library: each is the answer "none"
        return None
