"""Where a rank computes: its share of the node's cores, and a thread for each of them."""

import os
import platform
from collections.abc import Mapping
from typing import NamedTuple

import torch

from hpcai500.ranks.torch_ranks import Ranks
from hpcai500.system.cores import physical_cores, share_of
from hpcai500.words import counted

_BINDS_THREADS = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


class Placement(NamedTuple):
    """What a rank got; Layer 6 records it."""

    device: str
    num_cores: int
    """Physical ones; where ranks outnumber them, all of the node's."""
    num_threads: int
    """Of one operation on the processor."""
    is_bound: bool
    """The rank runs on these cores alone, by the launcher's doing or ours."""


def crowding(placement: Placement) -> str | None:
    """A line for whoever started the run, where a rank has more threads than cores, which then take turns."""
    if placement.device != "cpu" or placement.num_threads <= placement.num_cores:
        return None
    return (
        f"warning: each rank has {placement.num_threads} threads on "
        f"{counted(placement.num_cores, 'core')}, which is slow: unset OMP_NUM_THREADS, or lower it"
    )


def take_cores(ranks: Ranks, env: Mapping[str, str]) -> Placement:
    """Share the node's cores among its ranks where the launcher left all cores to all; every rank must call.

    Threads that exist already keep what they have: call it before the first operation. A rank with a GPU is left
    where its launcher put it, since which cores are near its GPU is the site's to know; and so is one whose `env`
    binds threads itself or asks for more of them than it has cores.
    """
    mine = frozenset(os.sched_getaffinity(0))
    nodes = ranks.broadcast(ranks.gather((platform.node(), ranks.local_rank, mine)))
    others = [cpus for node, local_rank, cpus in nodes if node == platform.node() and local_rank != ranks.local_rank]
    cores = physical_cores(mine)
    all_alike = bool(others) and all(cpus == mine for cpus in others)
    own = share_of(cores, ranks.local_rank, ranks.local_size) if all_alike else cores
    if "OMP_NUM_THREADS" not in env:
        torch.set_num_threads(len(own) if len(cores) >= ranks.local_size or not all_alike else 1)
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
