"""Health of a node's host: memory, disks, limits, clock, shared folder."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

from hpcai500.errors import MachineError
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation, Trouble

LEAST_FREE_BYTES = 1 << 30
"""Free space of a disk that runs write to: less is a warning, less than an eighth of it a failure."""
LEAST_FREE_SHARE = 0.02
"""Free share of a disk: less is a warning."""
LEAST_OPEN_FILES = 4_096
"""Open files allowed: data loaders and a rank's peers need some each; PyTorch advises more than 1,024."""
LEAST_LOCKED_BYTES = 64 << 20
"""Locked memory allowed: RDMA locks its buffers, and sites with InfiniBand set no limit."""
LEAST_SHM_BYTES = 1 << 30
"""Free shared memory: data loader workers pass batches through it."""
_TMP = "/tmp"  # noqa: S108 - looked at, not written to
_SHM = "/dev/shm"  # noqa: S108 - looked at, not written to
CLOCK_WARN_SEC, CLOCK_FAIL_SEC = 0.1, 1.0
"""Clock offsets: logs of nodes must be comparable, and Munge refuses credentials minutes old."""


def memory_and_disks(seat: Seat) -> Iterator[Observation]:
    yield _number(seat, "memory_bytes", "B", psutil.virtual_memory().total, "higher")
    places = {"tmp": Path(os.environ.get("TMPDIR", _TMP)), "results": seat.folder}
    for name, path in places.items():
        usage = psutil.disk_usage(str(path))
        yield _number(seat, f"{name}_free_bytes", "B", usage.free, "higher", str(path))
        if usage.free < LEAST_FREE_BYTES or usage.free < LEAST_FREE_SHARE * usage.total:
            severity: Literal["warn", "fail"] = "fail" if usage.free < LEAST_FREE_BYTES // 8 else "warn"
            message = f"the disk of {path} is full" if severity == "fail" else f"the disk of {path} is nearly full"
            yield _unhealthy(seat, f"{name}_free_bytes", message, "remove files that nobody needs", severity)
    shared_memory = Path(_SHM)
    if not shared_memory.is_dir():
        yield _unhealthy(seat, "shm_bytes", f"no {_SHM}", "mount a tmpfs there: data loaders need it", "fail")
        return
    size = psutil.disk_usage(str(shared_memory))
    yield _number(seat, "shm_bytes", "B", size.total, "higher")
    if size.free < LEAST_SHM_BYTES:
        remedy = "mount it with size=50%, and remove files that jobs left there"
        yield _unhealthy(seat, "shm_bytes", f"{_SHM} has less than {LEAST_SHM_BYTES >> 20} MiB free", remedy, "warn")


def limits(seat: Seat) -> Iterator[Observation]:
    """Limits of a job: slurmd's own, unless the site sets others."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    for metric, value in (("nofile_limit", files), ("memlock_limit", locked)):
        shown = "unlimited" if value == resource.RLIM_INFINITY else str(value)
        yield Measurement(
            stage="health", metric=metric, unit="", value=shown, better="same", nodes=(seat.node,)
        )  # fmt: skip
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        remedy = "raise LimitNOFILE of slurmd's systemd unit"
        yield _unhealthy(seat, "nofile_limit", f"a job may open at most {files} files", remedy, "warn")
    has_rdma = Path("/sys/class/infiniband").is_dir() and any(Path("/sys/class/infiniband").iterdir())
    if has_rdma and locked != resource.RLIM_INFINITY and locked < LEAST_LOCKED_BYTES:
        remedy = "set LimitMEMLOCK=infinity in slurmd's systemd unit, and PropagateResourceLimitsExcept=MEMLOCK"
        yield _unhealthy(seat, "memlock_limit", f"a job may lock at most {locked} bytes of memory", remedy, "fail")


def clock(seat: Seat) -> Iterator[Observation]:
    """Offset of this node's clock from the first node's."""
    if seat.meeting is None or seat.leads:
        if seat.meeting:
            yield _number(seat, "clock_offset_sec", "s", 0.0, "lower", "the clock that the others are compared with")
        return
    try:
        offset, uncertainty = seat.meeting.clock_offset()
    except MachineError as error:
        yield _unhealthy(seat, "clock_offset_sec", str(error), "check the network of both nodes", "warn")
        return
    detail = f"{offset:+.6f} s, to within {uncertainty:.6f} s"
    yield _number(seat, "clock_offset_sec", "s", max(0.0, abs(offset) - uncertainty), "lower", detail)
    sure = abs(offset) - uncertainty
    if sure > CLOCK_WARN_SEC:
        severity: Literal["warn", "fail"] = "fail" if sure > CLOCK_FAIL_SEC else "warn"
        remedy = "check `chronyc tracking` or `timedatectl` on it"
        yield _unhealthy(seat, "clock_offset_sec", "the clock differs from that of the other nodes", remedy, severity)


def shared_folder(seat: Seat) -> Iterator[Observation]:
    """Each node writes a file. Then the first node reads all of them, and the others read the first node's."""
    folder = seat.folder / "shared"
    own = folder / seat.node
    why = ""
    try:
        folder.mkdir(exist_ok=True)
        own.write_text(seat.node, encoding="utf-8")
    except OSError as error:
        why = error.strerror or str(error)
        message = f"{folder} cannot be written: {why}"
        yield _unhealthy(seat, "shared_folder", message, "check its mount on the node", "fail")
    wrote = seat.wait("health: shared folder", not why)
    expected = [node for node, succeeded in wrote.items() if succeeded]
    if not seat.leads:
        expected = expected[:1]
    unseen = [node for node in expected if not _says(folder / node, node)]
    for node in unseen:
        message = f"{seat.node} does not see what this node writes to the shared folder"
        yield Trouble(
            stage="health", nodes=(node,), kind="unhealthy", metric="shared_folder", message=message,
            remedy="mount the same file system on all nodes, and check its caching",
        )  # fmt: skip
    seat.wait("health: seen")
    with suppress(OSError):
        own.unlink()


def _says(path: Path, text: str) -> bool:
    with suppress(OSError):
        os.listdir(path.parent)  # makes a network file system look again
        return path.read_text(encoding="utf-8") == text
    return False


def _number(
    seat: Seat, metric: str, unit: str, value: float, better: Literal["higher", "lower"], detail: str = ""
) -> Measurement:
    return Measurement(
        stage="health",
        metric=metric,
        unit=unit,
        value=float(value),
        better=better,
        nodes=(seat.node,),
        detail=detail,
    )


def _unhealthy(seat: Seat, metric: str, message: str, remedy: str, severity: Literal["warn", "fail"]) -> Trouble:
    return Trouble(
        stage="health", nodes=(seat.node,), kind="unhealthy", severity=severity, metric=metric, message=message,
        remedy=remedy,
    )  # fmt: skip
