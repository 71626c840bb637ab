"""Where a rank computes: its share of the node's cores, and a thread for each of them."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch

from hpcai500.system.cores import Core, physical_cores, share_of, threads_of
from hpcai500.text import counted

_BINDS_THREADS = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


T = TypeVar("T")


class Node(Protocol):
    """Ranks that know which of them share a node."""

    local_rank: int
    local_size: int
    device: torch.device

    def broadcast(self, value: T) -> T: ...

    def gather(self, value: T) -> list[T]: ...


class Placement(NamedTuple):
    """The device, cores and threads of a rank, which Layer 6 records."""

    device: str
    num_cores: int
    """Physical cores of the rank; all of the node's if ranks outnumber them."""
    num_threads: int
    """Threads of one operation on the CPU."""
    is_bound: bool
    """Whether the rank has these cores for itself, bound by the launcher or by us."""


def crowding(placement: Placement) -> str | None:
    """A warning for the user, if a rank has more threads than cores; None otherwise."""
    if placement.device != "cpu" or placement.num_threads <= placement.num_cores:
        return None
    return (
        f"warning: each rank has {placement.num_threads} threads on "
        f"{counted(placement.num_cores, 'core')}, which is slow: unset OMP_NUM_THREADS, or lower it"
    )


def take_cores(ranks: Node, env: Mapping[str, str]) -> Placement:
    """Share the node's cores among its ranks, if the launcher gave all cores to all ranks. Every rank must call.

    Call it before the first operation, since existing threads keep their cores. A rank with a GPU is not bound,
    since only the site knows which cores are near its GPU. Nor is a rank whose `env` binds threads itself or
    asks for more threads than it has cores.
    """
    mine = frozenset(os.sched_getaffinity(0))
    nodes = ranks.broadcast(ranks.gather((platform.node(), ranks.local_rank, mine)))
    others = [cpus for node, local_rank, cpus in nodes if node == platform.node() and local_rank != ranks.local_rank]
    cores = physical_cores(mine)
    all_alike = bool(others) and all(cpus == mine for cpus in others)
    own = share_of(cores, ranks.local_rank, ranks.local_size) if all_alike else cores
    if "OMP_NUM_THREADS" not in env:
        sharers = ranks.local_size if all_alike else 1
        torch.set_num_threads(num_threads(env, cores, sharers=sharers, local_size=ranks.local_size))
    threads = torch.get_num_threads()
    binds = (
        ranks.device.type == "cpu"
        and len(own) < len(cores)
        and threads <= len(own)
        and not any(name in env for name in _BINDS_THREADS)
    )
    if binds:
        os.sched_setaffinity(0, {cpu for core in own for cpu in core})
    is_alone = not any(cpus & mine for cpus in others)
    return Placement(ranks.device.type, len(own), threads, binds or is_alone)


def num_threads(env: Mapping[str, str], cores: Sequence[Core], *, sharers: int, local_size: int) -> int:
    """Threads of one rank that shares `cores` with `sharers` ranks, including itself.

    It takes at most its share, among `local_size` ranks, of the CPUs that Slurm gave to the job on this node.
    Some clusters let processes run on all cores. Slurm counts logical CPUs.
    """
    threads = threads_of(len(cores), sharers)
    given = env.get("SLURM_CPUS_ON_NODE", "")
    if not given.isdigit():
        return threads
    cpus_per_core = max(len(core) for core in cores)
    return min(threads, threads_of(math.ceil(int(given) / cpus_per_core), local_size))
