"""Health of a node's host: memory, disks, limits, clock, shared folder."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

from hpcai500.errors import MachineError
from hpcai500.validate.agent.seat import Found, Place
from hpcai500.validate.files import Measurement, Trouble

LEAST_FREE_BYTES = 1 << 30
"""Of a disk that runs write to; below it is a warning, below an eighth of it a failure."""
LEAST_FREE_SHARE = 0.02
"""Below it is a warning."""
LEAST_OPEN_FILES = 4_096
"""Data loaders and a rank's peers take some each; PyTorch's own guidance is to raise the usual 1,024."""
LEAST_LOCKED_BYTES = 64 << 20
"""RDMA registers its buffers as locked memory; sites with InfiniBand set unlimited."""
LEAST_SHM_BYTES = 1 << 30
"""Data loader workers hand over batches there."""
_TMP = "/tmp"  # noqa: S108 - looked at, not written to
_SHM = "/dev/shm"  # noqa: S108 - looked at, not written to
CLOCK_WARN_SEC, CLOCK_FAIL_SEC = 0.1, 1.0
"""Logs of nodes are held against each other, and Munge refuses what is minutes off."""


def memory_and_disks(place: Place) -> Iterator[Found]:
    yield _number(place, "memory_bytes", "B", psutil.virtual_memory().total, "higher")
    places = {"tmp": Path(os.environ.get("TMPDIR", _TMP)), "results": place.folder}
    for name, path in places.items():
        usage = psutil.disk_usage(str(path))
        yield _number(place, f"{name}_free_bytes", "B", usage.free, "higher", str(path))
        if usage.free < LEAST_FREE_BYTES or usage.free < LEAST_FREE_SHARE * usage.total:
            severity: Literal["warn", "fail"] = "fail" if usage.free < LEAST_FREE_BYTES // 8 else "warn"
            message = f"the disk of {path} is full" if severity == "fail" else f"the disk of {path} is nearly full"
            yield _unhealthy(place, f"{name}_free_bytes", message, "remove what nobody needs there", severity)
    shared_memory = Path(_SHM)
    if not shared_memory.is_dir():
        yield _unhealthy(place, "shm_bytes", f"no {_SHM}", "mount a tmpfs there: data loaders need it", "fail")
        return
    size = psutil.disk_usage(str(shared_memory))
    yield _number(place, "shm_bytes", "B", size.total, "higher")
    if size.free < LEAST_SHM_BYTES:
        remedy = "mount it with size=50%, and remove what jobs have left"
        yield _unhealthy(place, "shm_bytes", f"{_SHM} has less than {LEAST_SHM_BYTES >> 20} MiB free", remedy, "warn")


def limits(place: Place) -> Iterator[Found]:
    """As a job sees them: slurmd's own, unless the site says otherwise."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    for metric, value in (("nofile_limit", files), ("memlock_limit", locked)):
        shown = "unlimited" if value == resource.RLIM_INFINITY else str(value)
        yield Measurement(
            stage="health", metric=metric, unit="", value=shown, better="same", nodes=(place.node,)
        )  # fmt: skip
    if files != resource.RLIM_INFINITY and files < LEAST_OPEN_FILES:
        remedy = "raise LimitNOFILE of slurmd's systemd unit"
        yield _unhealthy(place, "nofile_limit", f"a job may open {files} files at most", remedy, "warn")
    has_rdma = Path("/sys/class/infiniband").is_dir() and any(Path("/sys/class/infiniband").iterdir())
    if has_rdma and locked != resource.RLIM_INFINITY and locked < LEAST_LOCKED_BYTES:
        remedy = "set LimitMEMLOCK=infinity in slurmd's systemd unit, and PropagateResourceLimitsExcept=MEMLOCK"
        yield _unhealthy(place, "memlock_limit", f"a job may lock {locked} bytes of memory at most", remedy, "fail")


def clock(place: Place) -> Iterator[Found]:
    """Offset of the clock to the first node's."""
    if place.meeting is None or place.leads:
        if place.meeting:
            yield _number(place, "clock_offset_sec", "s", 0.0, "lower", "the clock that the others are held against")
        return
    try:
        offset, uncertainty = place.meeting.clock_offset()
    except MachineError as error:
        yield _unhealthy(place, "clock_offset_sec", str(error), "see the network of both nodes", "warn")
        return
    detail = f"{offset:+.6f} s, to within {uncertainty:.6f} s"
    yield _number(place, "clock_offset_sec", "s", max(0.0, abs(offset) - uncertainty), "lower", detail)
    sure = abs(offset) - uncertainty
    if sure > CLOCK_WARN_SEC:
        severity: Literal["warn", "fail"] = "fail" if sure > CLOCK_FAIL_SEC else "warn"
        remedy = "see `chronyc tracking` or `timedatectl` on it"
        yield _unhealthy(place, "clock_offset_sec", "the clock is off that of the other nodes", remedy, severity)


def shared_folder(place: Place) -> Iterator[Found]:
    """Each node writes a file, and after all have, reads every one: the first node all, the others the first's."""
    folder = place.folder / "shared"
    own = folder / place.node
    why = ""
    try:
        folder.mkdir(exist_ok=True)
        own.write_text(place.node, encoding="utf-8")
    except OSError as error:
        why = error.strerror or str(error)
        message = f"{folder} cannot be written: {why}"
        yield _unhealthy(place, "shared_folder", message, "see the mount of it on the node", "fail")
    wrote = place.wait("health: shared folder", not why)
    expected = [node for node, succeeded in wrote.items() if succeeded]
    if not place.leads:
        expected = expected[:1]
    unseen = [node for node in expected if not _says(folder / node, node)]
    for node in unseen:
        message = f"{place.node} does not see what this node writes to the shared folder"
        yield Trouble(
            stage="health", nodes=(node,), kind="unhealthy", metric="shared_folder", message=message,
            remedy="mount the same file system on all nodes, and see its caching",
        )  # fmt: skip
    place.wait("health: seen")
    with suppress(OSError):
        own.unlink()


def _says(path: Path, text: str) -> bool:
    with suppress(OSError):
        os.listdir(path.parent)  # has a network file system look again
        return path.read_text(encoding="utf-8") == text
    return False


def _number(
    place: Place, metric: str, unit: str, value: float, better: Literal["higher", "lower"], detail: str = ""
) -> Measurement:
    return Measurement(
        stage="health",
        metric=metric,
        unit=unit,
        value=float(value),
        better=better,
        nodes=(place.node,),
        detail=detail,
    )


def _unhealthy(place: Place, metric: str, message: str, remedy: str, severity: Literal["warn", "fail"]) -> Trouble:
    return Trouble(
        stage="health", nodes=(place.node,), kind="unhealthy", severity=severity, metric=metric, message=message,
        remedy=remedy,
    )  # fmt: skip
