"""The rendezvous of ranks that only share a file system: rank 0 opens a port and writes its address to a file."""

import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from torch._C._distributed_c10d import TCPStore

from hpcai500.errors import MachineError
from hpcai500.files import write_atomic
from hpcai500.launch.launcher import RankEnvironment
from hpcai500.system.addresses import own_address

_TIMEOUT_SEC = 300
_POLL_SEC = 0.05


def rendezvous(own: RankEnvironment, folder: Path, env: Mapping[str, str]) -> TCPStore:
    """The store that all ranks of one start share, on a port that was free on rank 0's node.

    Raises:
        MachineError: if rank 0's address does not appear in `folder`, or cannot be reached.
    """
    path = folder / f"rendezvous-{own.start}"
    if own.rank == 0:
        store = open_store()
        write_atomic(path, f"{own_address(env, single_node=own.size == own.local_size)} {store.port}\n")
        return store
    return connect(*_read_address(path, own.rank), own.rank)


def open_store() -> TCPStore:
    """Rank 0's store, on a free port."""
    timeout = timedelta(seconds=_TIMEOUT_SEC)
    return TCPStore("0.0.0.0", 0, None, is_master=True, wait_for_workers=False, timeout=timeout)  # noqa: S104


def connect(address: str, port: int, rank: int) -> TCPStore:
    """The connection of `rank` to rank 0's store.

    Raises:
        MachineError: if it cannot be reached.
    """
    timeout = timedelta(seconds=_TIMEOUT_SEC)
    try:
        return TCPStore(address, port, None, is_master=False, wait_for_workers=False, timeout=timeout)
    except RuntimeError as error:
        raise MachineError(
            f"rank {rank} cannot reach rank 0 at {address}:{port}",
            "name the nodes' common interface: network_interface in the site profile, or GLOO_SOCKET_IFNAME",
        ) from error


def _read_address(path: Path, rank: int) -> tuple[str, int]:
    deadline = time.monotonic() + _TIMEOUT_SEC
    while time.monotonic() < deadline:
        try:
            address, port = path.read_text(encoding="ascii").split()
            return address, int(port)
        except FileNotFoundError:
            time.sleep(_POLL_SEC)
    raise MachineError(
        f"rank {rank} waited {_TIMEOUT_SEC} s for rank 0 to write {path}",
        "check that all nodes share the results directory, and rank 0's lines in the log",
    )
