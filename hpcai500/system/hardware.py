"""Layer 1: processors, memory, GPUs and their links, network interfaces."""

import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from hpcai500.system.programs import output_of

_NET = Path("/sys/class/net")
_INFINIBAND = Path("/sys/class/infiniband")


def hardware() -> dict[str, Any]:
    return {
        **processors(output_of("lscpu", "--json")),
        "num_cores": psutil.cpu_count(logical=False),
        "num_logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus(),
        "nics": [*ethernet(), *infiniband(_INFINIBAND)],
    }


def processors(lscpu: str) -> dict[str, Any]:
    """Model, sockets and NUMA domains from the output of `lscpu --json`, or the model from py-cpuinfo without it.

    lscpu takes milliseconds. py-cpuinfo takes a second, since it runs instructions in separate processes.
    """
    fields: dict[str, str] = {}
    with suppress(ValueError, KeyError, TypeError):
        fields = {row["field"].rstrip(":"): row["data"] for row in json.loads(lscpu)["lscpu"]}
    model = fields.get("Model name", "-")
    if model == "-":
        import cpuinfo

        model = cpuinfo.get_cpu_info().get("brand_raw", platform.processor() or platform.machine())
    return {
        "cpu_model": model,
        "architecture": fields.get("Architecture", platform.machine()),
        "num_sockets": _number(fields.get("Socket(s)")),
        "num_numa_domains": _number(fields.get("NUMA node(s)")),
    }


def gpus() -> list[dict[str, Any]]:
    """All NVIDIA GPUs of the node, visible or not, with memory and links; AMD GPUs from torch."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no driver, no library
        return _torch_gpus()
    return [_nvidia_gpu(pynvml, handle) for handle in handles]


def _nvidia_gpu(nvml: Any, handle: Any) -> dict[str, Any]:
    def ask(question: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, question)(handle, *arguments)
        except Exception:  # this GPU or driver does not support the question
            return None

    links = [ask("nvmlDeviceGetNvLinkState", link) for link in range(18)]
    milliwatts = ask("nvmlDeviceGetEnforcedPowerLimit")
    mig = ask("nvmlDeviceGetMigMode")
    return {
        "model": ask("nvmlDeviceGetName"),
        "memory_bytes": getattr(ask("nvmlDeviceGetMemoryInfo"), "total", None),
        "pcie_generation": ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        "pcie_width": ask("nvmlDeviceGetMaxPcieLinkWidth"),
        "num_nvlinks": sum(state == 1 for state in links),
        "power_limit_watts": round(milliwatts / 1_000) if milliwatts else None,
        "mig": bool(mig and mig[0]),
    }


def _torch_gpus() -> list[dict[str, Any]]:
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"model": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found]


def ethernet() -> list[dict[str, Any]]:
    """Interfaces that are up and belong to a device; virtual ones only if there are no others."""
    up = {
        name: stats.speed
        for name, stats in psutil.net_if_stats().items()
        if stats.isup and name != "lo" and not (_NET / name / "type").read_text().startswith("32")
    }  # type 32 is InfiniBand, which `infiniband` describes better
    physical = {name: speed for name, speed in up.items() if (_NET / name / "device").exists()}
    return [
        {"name": name, "megabits_per_sec": speed if 0 < speed < 65_535 else None}
        for name, speed in sorted((physical or up).items())
    ]


def infiniband(folder: Path) -> list[dict[str, Any]]:
    """Ports below `folder`, with their rate as the kernel shows it: `200 Gb/sec (4X HDR)`."""
    ports = sorted(folder.glob("*/ports/*")) if folder.is_dir() else []
    return [
        {"name": f"{port.parent.parent.name}:{port.name}", "rate": (port / "rate").read_text().strip()}
        for port in ports
        if (port / "rate").exists()
    ]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
