"""Energy from counters: NVML for GPUs, RAPL for processor packages. Never an estimate, never zero for "unknown"."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch

RAPL = Path("/sys/class/powercap")


CounterName = Literal["nvml", "rapl"]


class MissingCounter(NamedTuple):
    """Why a rank reads no such counter."""

    counter: CounterName
    reason: str

    def __str__(self) -> str:
        return f"{self.counter.upper()}: {self.reason}"


class EnergyCoverage(NamedTuple):
    """What is measured over all ranks."""

    sources: tuple[CounterName, ...]
    missing: tuple[MissingCounter, ...]
    is_complete: bool
    """Every GPU, or without GPUs every node's packages, has a counter."""


def coverage(
    of_ranks: Iterable[tuple[Sequence[CounterName], Sequence[MissingCounter]]], device_type: str
) -> EnergyCoverage:
    every = list(of_ranks)
    sources = {source for found, _ in every for source in found}
    missing = {reason for _, reasons in every for reason in reasons}
    needed: CounterName = "nvml" if device_type == "cuda" else "rapl"
    is_complete = needed in sources and not any(one.counter == needed for one in missing)
    return EnergyCoverage(tuple(sorted(sources)), tuple(sorted(missing)), is_complete)


class Counter(Protocol):
    def read_joules(self) -> float:
        """A figure that grows with the energy used."""


class NvmlCounter:
    """One GPU's energy since the driver was loaded (Volta and later)."""

    name: CounterName = "nvml"

    def __init__(self, device: torch.device) -> None:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._nvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self.read_joules()  # refuses here where the GPU has no counter

    def read_joules(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1_000


class RaplCounter:
    """One processor package's energy; the register wraps, so it must be read more often than that."""

    name: CounterName = "rapl"

    def __init__(self, domain: Path) -> None:
        self._file = domain / "energy_uj"
        self._range = int((domain / "max_energy_range_uj").read_text()) + 1
        self._last = self._read()
        self._wrapped = 0

    def read_joules(self) -> float:
        now = self._read()
        if now < self._last:
            self._wrapped += self._range
        self._last = now
        return (now + self._wrapped) / 1_000_000

    def _read(self) -> int:
        return int(self._file.read_text())


class EnergyMeter:
    """What one rank can measure: its own GPU, and on a node's first rank the packages too."""

    def __init__(self, device: torch.device, *, node_leader: bool, rapl: Path = RAPL) -> None:
        self.counters: list[NvmlCounter | RaplCounter] = []
        self.missing: list[MissingCounter] = []
        if device.type == "cuda":
            self._try_nvml(device)
        if node_leader:
            self._try_rapl(rapl)
        self._last = self._read()

    @property
    def sources(self) -> list[CounterName]:
        return sorted({counter.name for counter in self.counters})

    def joules_since_last(self) -> float:
        """Joules since the last call, or since the meter was made; 0 for a rank that measures nothing."""
        now = self._read()
        used, self._last = now - self._last, now
        return used

    def _read(self) -> float:
        return sum(counter.read_joules() for counter in self.counters)

    def _try_nvml(self, device: torch.device) -> None:
        try:
            self.counters.append(NvmlCounter(device))
        except Exception as error:  # any fault of a driver's library: the figure is then missing, and said so
            self.missing.append(MissingCounter("nvml", str(error)))

    def _try_rapl(self, rapl: Path) -> None:
        domains = [path for path in sorted(rapl.glob("intel-rapl:*")) if path.name.count(":") == 1]
        try:
            self.counters.extend([RaplCounter(domain) for domain in domains])
        except OSError as error:
            self.missing.append(MissingCounter("rapl", f"{error.filename}: {error.strerror}"))
        if not domains:
            self.missing.append(MissingCounter("rapl", f"no counters under {rapl}"))
