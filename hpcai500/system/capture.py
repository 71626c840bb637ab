"""What a node is: Layers 1 to 6, read on the node itself."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hpcai500.files import digest
from hpcai500.spec.run import RunSpec


def capture_node(spec: RunSpec) -> dict[str, Any]:
    """Host name and layers of this node; keys are the layers' numbers."""
    return {
        "host": platform.node(),
        "layers": {
            "1": hardware(),
            "2": operating_system(),
            "3": communication_libraries(),
            "4": acceleration_libraries(),
            "5": framework(),
            "6": programming_model(spec),
        },
    }


def group_nodes(nodes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Equal nodes once, with their hosts; the most common kind first."""
    groups: dict[str, dict[str, Any]] = {}
    for node in nodes:
        group = groups.setdefault(digest(node["layers"]), {"hosts": [], "layers": node["layers"]})
        group["hosts"].append(node["host"])
    ordered = sorted(groups.values(), key=lambda group: (-len(group["hosts"]), group["hosts"]))
    return {"schema_version": 1, "nodes": [{"count": len(g["hosts"]), **g} for g in ordered]}


def hardware() -> dict[str, Any]:
    import cpuinfo
    import psutil
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu_model": cpuinfo.get_cpu_info().get("brand_raw", platform.processor()),
        "num_cores": psutil.cpu_count(logical=False),
        "num_logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [{"model": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
    }


def operating_system() -> dict[str, Any]:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "distribution": release.get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "gpu_driver": _gpu_driver(),
    }


def communication_libraries() -> dict[str, Any]:
    import torch

    has_nccl = torch.distributed.is_nccl_available() and torch.cuda.is_available()
    return {
        "nccl": ".".join(str(part) for part in torch.cuda.nccl.version()) if has_nccl else None,
        "gloo": torch.distributed.is_gloo_available(),
        "mpi": _mpi_library(),
        "environment": _environment(("NCCL_", "GLOO_", "UCX_", "FI_", "OMPI_MCA_", "HOROVOD_")),
    }


def acceleration_libraries() -> dict[str, Any]:
    import torch

    return {
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "mkl": torch.backends.mkl.is_available(),
        "onednn": torch.backends.mkldnn.is_available(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment": _environment(("OMP_", "MKL_", "KMP_", "CUDA_VISIBLE_DEVICES", "CUBLAS_")),
    }


def framework() -> dict[str, Any]:
    import torch
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "horovod": version("horovod") if "horovod" in sys.modules else None,
    }


def programming_model(spec: RunSpec) -> dict[str, Any]:
    execution = spec.settings.execution
    return {
        "backend": spec.backend,
        "launcher": spec.launcher,
        "gradient_compression": execution.gradient_compression,
        "parallel_mode": "data, synchronous",
        "world_size": spec.world_size,
        "precision": execution.precision,
        "compile": execution.compile,
    }


def _gpu_driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no GPU, no driver, no library: each is the answer "none"
        return None


def _mpi_library() -> str | None:
    """The MPI library that this process has loaded, in its own words."""
    maps = Path("/proc/self/maps")
    paths = [line.split()[-1] for line in maps.read_text().splitlines()] if maps.exists() else []
    path = next((path for path in paths if Path(path).name.startswith("libmpi.so")), None)
    if path is None:
        return None
    text, length = ctypes.create_string_buffer(8_192), ctypes.c_int()  # MPI_MAX_LIBRARY_VERSION_STRING at its largest
    ctypes.CDLL(path).MPI_Get_library_version(text, ctypes.byref(length))
    return text.value.decode(errors="replace").strip().splitlines()[0]


def _environment(prefixes: tuple[str, ...]) -> dict[str, str]:
    """The variables that steer a layer, by allow-list."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefixes)}
