"""Health of a node's GPUs, from NVML, NVIDIA's library under nvidia-smi and DCGM."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal

from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation, Trouble

HOT_CELSIUS = 85
"""Limit for a GPU that reports none; data-centre GPUs slow down at about 87."""
_MARGIN_CELSIUS = 5
"""Distance from the GPU's own slowdown limit at which to warn."""
_MOST_NVLINKS = 18
_VOLATILE, _AGGREGATE = 0, 1
"""nvmlEccCounterType_t."""
_CORRECTED, _UNCORRECTED = 0, 1
"""nvmlMemoryErrorType_t."""

SLOWED = {
    0x8: ("hardware slowdown", "fail", "check power supply and cooling"),
    0x20: ("software thermal slowdown", "warn", "check the cooling of its rack"),
    0x40: ("hardware thermal slowdown", "fail", "check fans, airflow and thermal paste: the GPU protects itself"),
    0x80: ("hardware power brake", "fail", "check power supplies: the machine asks its GPUs to slow down"),
}  # fmt: skip
"""nvmlClocksEventReasons that a healthy GPU never has. A power cap (0x4) is a site's choice; idle is no fault."""


class Gpu:
    """One GPU, queried by NVML's function names; unknown answers are None."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.device = f"gpu{index}"

    def ask(self, question: str, *arguments: Any) -> Any:
        with suppress(self._nvml.NVMLError, AttributeError):
            return getattr(self._nvml, question)(self._handle, *arguments)
        return None


def gpu_health(seat: Seat) -> Iterator[Observation]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver or library: inventory reports a node that lacks what others have
        return
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            gpu = Gpu(pynvml, index)
        except pynvml.NVMLError as error:
            message = f"the driver cannot reach this GPU: {error}"
            remedy = "look for Xid messages in dmesg; reset the GPU, or reboot the node"
            yield Trouble(
                stage="health", nodes=(seat.node,), device=f"gpu{index}", kind="unhealthy", message=message,
                remedy=remedy,
            )  # fmt: skip
            continue
        for check in (memory_errors, throttling, pcie, nvlinks, state):
            yield from check(seat.node, gpu)


def memory_errors(node: str, gpu: Gpu) -> Iterable[Observation]:
    """ECC errors since the driver was loaded, and remapped memory rows."""
    mode = gpu.ask("nvmlDeviceGetEccMode")
    if mode is not None:
        yield _same(node, gpu, "ecc_mode", "on" if mode[0] else "off")
    for name, kind in (("corrected", _CORRECTED), ("uncorrected", _UNCORRECTED)):
        for span, counter in (("", _VOLATILE), ("_lifetime", _AGGREGATE)):
            count = gpu.ask("nvmlDeviceGetTotalEccErrors", kind, counter)
            if count is None:
                continue
            yield _number(node, gpu, f"ecc_{name}{span}", "count", count, "lower")
            if count and kind == _UNCORRECTED and counter == _VOLATILE:
                remedy = "drain the node and reset the GPU; replace it if the errors come back"
                yield _unhealthy(node, gpu, "ecc_uncorrected", "uncorrected ECC errors", remedy)
    rows = gpu.ask("nvmlDeviceGetRemappedRows")
    if rows is None:
        return
    corrected, uncorrected, pending, failed = rows
    yield _number(node, gpu, "remapped_rows", "count", corrected + uncorrected, "lower")
    if failed:
        yield _unhealthy(node, gpu, "remapped_rows", "a memory row could not be remapped", "replace the GPU")
    elif pending:
        remedy = "reset the GPU, or reboot the node"
        yield _unhealthy(node, gpu, "remapped_rows", "a memory row waits to be remapped", remedy)


def throttling(node: str, gpu: Gpu) -> Iterable[Observation]:
    reasons = gpu.ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:
        reasons = gpu.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    for bit, (name, severity, remedy) in SLOWED.items():
        if reasons is not None and reasons & bit:
            yield _unhealthy(node, gpu, "throttle", f"slowed down: {name}", remedy, severity)
    celsius = gpu.ask("nvmlDeviceGetTemperature", 0)
    if celsius is not None:
        yield _number(node, gpu, "temperature_celsius", "C", celsius, "lower")
        limit = gpu.ask("nvmlDeviceGetTemperatureThreshold", 1)  # NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        if celsius >= (limit - _MARGIN_CELSIUS if limit else HOT_CELSIUS):
            yield _unhealthy(node, gpu, "temperature_celsius", "close to the temperature at which it slows down",
                             "check fans, airflow and the room", "warn")  # fmt: skip


def pcie(node: str, gpu: Gpu) -> Iterable[Observation]:
    """Negotiated width and generation of the slot, compared with the most that GPU and board support together."""
    for name, current, most in (
        ("width", "nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetMaxPcieLinkWidth"),
        ("generation", "nvmlDeviceGetCurrPcieLinkGeneration", "nvmlDeviceGetMaxPcieLinkGeneration"),
    ):
        now, best = gpu.ask(current), gpu.ask(most)
        if now is None or best is None:
            continue
        yield _number(node, gpu, f"pcie_{name}", "count", now, "higher", f"of {best}")
        if now >= best:
            continue
        message = f"PCIe {name} is {now}, not {best}"
        if name == "width":
            yield _unhealthy(node, gpu, "pcie_width", message, "reseat the card; check its riser and slot")
        elif gpu.ask("nvmlDeviceGetPerformanceState") == 0:  # an idle link drops to a lower generation
            yield _unhealthy(
                node, gpu, "pcie_generation", message, "check the slot's setting in the BIOS; reseat the card"
            )


def nvlinks(node: str, gpu: Gpu) -> Iterable[Observation]:
    states = [gpu.ask("nvmlDeviceGetNvLinkState", link) for link in range(_MOST_NVLINKS)]
    known = [link for link, state in enumerate(states) if state is not None]
    if not known:
        return
    down = [link for link in known if not states[link]]
    yield _same(node, gpu, "nvlinks_up", str(len(known) - len(down)))
    if down and len(down) < len(known):  # all down: a board without a bridge
        numbers = ", ".join(map(str, down))
        remedy = "check `nvidia-smi nvlink -e`, the fabric manager, and the bridge or board"
        yield _unhealthy(node, gpu, "nvlinks_up", f"NVLink {numbers} is down", remedy)


def state(node: str, gpu: Gpu) -> Iterable[Observation]:
    """Settings that affect speed: clocks, power limit, persistence."""
    for metric, question, arguments in (
        ("max_sm_clock_mhz", "nvmlDeviceGetMaxClockInfo", (1,)),
        ("max_memory_clock_mhz", "nvmlDeviceGetMaxClockInfo", (2,)),
        ("applications_sm_clock_mhz", "nvmlDeviceGetApplicationsClock", (1,)),
        ("power_limit_milliwatts", "nvmlDeviceGetEnforcedPowerLimit", ()),
    ):
        value = gpu.ask(question, *arguments)
        if value is not None:
            yield _same(node, gpu, metric, str(value))
    for metric, clock in (("sm_clock_mhz", 1), ("memory_clock_mhz", 2)):
        value = gpu.ask("nvmlDeviceGetClockInfo", clock)
        if value is not None:
            yield _number(node, gpu, metric, "MHz", value, "higher")
    persistence = gpu.ask("nvmlDeviceGetPersistenceMode")
    if persistence is not None:
        yield _same(node, gpu, "persistence", "on" if persistence else "off")
        if not persistence:
            yield _unhealthy(node, gpu, "persistence", "persistence mode is off: each job waits for the driver",
                             "enable nvidia-persistenced", "warn")  # fmt: skip


def _number(
    node: str, gpu: Gpu, metric: str, unit: str, value: float, better: Literal["higher", "lower"], detail: str = ""
) -> Measurement:
    return Measurement(
        stage="health", metric=metric, unit=unit, value=float(value), better=better, nodes=(node,), device=gpu.device,
        detail=detail,
    )  # fmt: skip


def _same(node: str, gpu: Gpu, metric: str, value: str) -> Measurement:
    return Measurement(
        stage="health", metric=metric, unit="", value=value, better="same", nodes=(node,), device=gpu.device
    )


def _unhealthy(node: str, gpu: Gpu, metric: str, message: str, remedy: str, severity: str = "fail") -> Trouble:
    return Trouble(
        stage="health", nodes=(node,), device=gpu.device, kind="unhealthy", metric=metric, message=message,
        remedy=remedy, severity="fail" if severity == "fail" else "warn",
    )  # fmt: skip
