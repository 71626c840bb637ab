"""Energy from counters: NVML for GPUs, RAPL for CPU packages. Never an estimate, and never zero for "unknown"."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch

RAPL = Path("/sys/class/powercap")


CounterName = Literal["nvml", "rapl"]


class MissingCounter(NamedTuple):
    """A counter that a rank cannot read, and why."""

    counter: CounterName
    reason: str

    def __str__(self) -> str:
        return f"{self.counter.upper()}: {self.reason}"


class EnergyCoverage(NamedTuple):
    """The counters of all ranks together."""

    sources: tuple[CounterName, ...]
    missing: tuple[MissingCounter, ...]
    is_complete: bool
    """Whether every GPU, or without GPUs every node's packages, has a counter."""


def coverage(
    by_rank: Iterable[tuple[Sequence[CounterName], Sequence[MissingCounter]]], device_type: str
) -> EnergyCoverage:
    every = list(by_rank)
    sources = {source for found, _ in every for source in found}
    missing = {reason for _, reasons in every for reason in reasons}
    needed: CounterName = "nvml" if device_type == "cuda" else "rapl"
    is_complete = needed in sources and not any(one.counter == needed for one in missing)
    return EnergyCoverage(tuple(sorted(sources)), tuple(sorted(missing)), is_complete)


class Counter(Protocol):
    def read_joules(self) -> float:
        """Joules since some fixed moment."""


class NvmlCounter:
    """One GPU's energy since the driver was loaded (Volta and later)."""

    name: CounterName = "nvml"

    def __init__(self, device: torch.device) -> None:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._nvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self.read_joules()  # fails here if the GPU has no counter

    def read_joules(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1_000


class RaplCounter:
    """Energy of one CPU package. The register wraps around, so it must be read more often than it wraps."""

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
    """The counters of one rank: of its own GPU, and on a node's first rank also of the CPU packages."""

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
        """Joules since the last call, or since the meter was created; 0 for a rank without counters."""
        now = self._read()
        used, self._last = now - self._last, now
        return used

    def _read(self) -> float:
        return sum(counter.read_joules() for counter in self.counters)

    def _try_nvml(self, device: torch.device) -> None:
        try:
            self.counters.append(NvmlCounter(device))
        except (
            Exception
        ) as error:  # the driver's library raises many kinds of errors; the figure is then reported as missing
            self.missing.append(MissingCounter("nvml", str(error)))

    def _try_rapl(self, rapl: Path) -> None:
        domains = [path for path in sorted(rapl.glob("intel-rapl:*")) if path.name.count(":") == 1]
        try:
            self.counters.extend([RaplCounter(domain) for domain in domains])
        except OSError as error:
            self.missing.append(MissingCounter("rapl", f"{error.filename}: {error.strerror}"))
        if not domains:
            self.missing.append(MissingCounter("rapl", f"no counters under {rapl}"))
