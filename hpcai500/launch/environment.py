"""The environment of started processes, without variables of other launchers and with numbers of threads."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hpcai500.spec.site import Site
from hpcai500.system.cores import TOPOLOGY, physical_cores, threads_of

_RANK_VARIABLES = re.compile(
    r"(RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT)$"
    r"|TORCHELASTIC_|OMPI_COMM_WORLD_|PMI|HPCAI500_(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|START)$"
    r"|HOROVOD_(RANK|SIZE|LOCAL_|CROSS_|GLOO_|CONTROLLER|HOSTNAME)"
    r"|SLURM_(CPU_BIND|MEM_BIND|DISTRIBUTION|STEP)"
)
"""Variables with a process's rank, and those by which srun binds and distributes a job step."""
_HOROVODRUN_VARIABLE = ("HOROVOD_CPU_OPERATIONS", "gloo")
"""horovodrun exports this to its own ranks; inherited by mpirun's ranks, it crashes them."""
_JOB_VARIABLES = re.compile(r"SLURM_|SLURMD_|SBATCH_|SALLOC_|SRUN_|OMPI_")
_KEPT = ("SLURM_CONF",)
"""Variables of the cluster, which do not belong to any job."""


class Machine(NamedTuple):
    """The machine on which a launcher is started, as this process sees it."""

    python: str
    env: Mapping[str, str]
    cpus: frozenset[int]
    """Logical CPUs that this process may use."""
    as_root: bool = False
    topology: Path = TOPOLOGY

    @property
    def num_cores(self) -> int:
        """Physical cores that this process may use."""
        return len(physical_cores(self.cpus, self.topology))


def this_machine() -> Machine:
    return Machine(
        python=sys.executable,
        env=dict(os.environ),
        cpus=frozenset(os.sched_getaffinity(0)),
        as_root=os.geteuid() == 0,
    )


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without the variables that another launcher or job step set for its own processes."""
    return {
        name: value
        for name, value in env.items()
        if not _RANK_VARIABLES.match(name) and (name, value.lower()) != _HOROVODRUN_VARIABLE
    }


def surrounding(env: Mapping[str, str]) -> list[str]:
    """Sorted names of variables of the job around us that a new job must not inherit."""
    return sorted(
        name for name in env if name not in _KEPT and (_JOB_VARIABLES.match(name) or _RANK_VARIABLES.match(name))
    )


def thread_variables(machine: Machine, procs_per_node: int) -> dict[str, str]:
    """Threads per rank on this machine: as the user set them, or else a share of the physical cores."""
    default = str(threads_of(machine.num_cores, procs_per_node))
    return {"OMP_NUM_THREADS": machine.env.get("OMP_NUM_THREADS", default)}


def fabric_variables(site: Site) -> dict[str, str]:
    """The site's network interface as variables of Gloo and NCCL; empty to let each choose."""
    interface = site.software.network_interface
    return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}
