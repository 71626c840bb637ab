"""A RunSpec as the command and the environment that start it: pure functions, held by golden tests."""

from collections.abc import Mapping
from signal import Signals
from typing import NamedTuple

from hpcai500.launch.mpi import horovodrun_tokens, local_mpirun_tokens, mpirun_environment
from hpcai500.launch.slurm.script import (
    WORKER,
    run_environment,
    run_folders,
    site_python,
    step_environment,
    step_tokens,
)
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site

_INHERITED_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_OF_HOROVODRUN = ("HOROVOD_CPU_OPERATIONS", "gloo")
"""It sets it for its ranks itself, and those of MPI die of it."""
_OF_OTHER_RANKS = (
    "TORCHELASTIC_", "OMPI_COMM_WORLD_", "PMIX_", "PMI_", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_",
    "HOROVOD_CROSS_", "HOROVOD_GLOO_", "HOROVOD_CONTROLLER", "HOROVOD_HOSTNAME",
)  # fmt: skip


class Plan(NamedTuple):
    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment of the new process."""
    stop_signal: Signals = Signals.SIGTERM
    """What has the launcher ask its ranks to stop."""
    signals_ranks: bool = False
    """The launcher passes no signal on: its ranks, all on this machine, get it themselves."""


def plan_local(spec: RunSpec, *, python: str, num_cores: int, env: Mapping[str, str]) -> Plan:
    """All ranks on this machine, under torchrun."""
    argv = (
        python,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={spec.procs_per_node}",
        "--module",
        WORKER,
        str(spec.folder / "run.json"),
    )
    return Plan(argv, worker_environment(spec, num_cores, env) | {"GLOO_SOCKET_IFNAME": "lo"})


def plan_horovodrun(spec: RunSpec, *, python: str, num_cores: int, env: Mapping[str, str]) -> Plan:
    """All ranks on this machine, under Horovod's launcher."""
    argv = (*horovodrun_tokens(python, spec.world_size), python, "-m", WORKER, str(spec.folder / "run.json"))
    # at SIGTERM, horovodrun gives its ranks five seconds
    return Plan(argv, worker_environment(spec, num_cores, env), Signals.SIGUSR1, signals_ranks=True)


def plan_mpirun(spec: RunSpec, *, python: str, num_cores: int, env: Mapping[str, str], as_root: bool) -> Plan:
    """All ranks on this machine, under Open MPI's launcher."""
    step = local_mpirun_tokens(spec.procs_per_node, as_root=as_root)
    worker = (python, "-m", WORKER, str(spec.folder / "run.json"))
    environment = worker_environment(spec, num_cores, env) | mpirun_environment() | {"GLOO_SOCKET_IFNAME": "lo"}
    return Plan((*step, *worker), environment, Signals.SIGUSR1)  # at SIGTERM, mpirun kills its ranks


def plan_step(spec: RunSpec, site: Site, *, python: str, env: Mapping[str, str], as_root: bool = False) -> Plan:
    """All ranks on the nodes of the allocation that `env` tells of, by the launcher of the run."""
    step = step_tokens(
        site,
        nodes=spec.nodes,
        procs_per_node=spec.procs_per_node,
        num_ranks=spec.num_ranks,
        folders=run_folders(spec),
        as_root=as_root,
    )
    # What an enclosing step was bound to, and how it was laid out, is not for this one.
    stale = ("SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_DISTRIBUTION", "SLURM_STEP", "PMI")
    clean = {name: value for name, value in env.items() if not name.startswith(stale)}
    cores_of_task = env.get("SLURM_CPUS_PER_TASK", "")
    num_cores = spec.procs_per_node * int(cores_of_task) if cores_of_task else int(env.get("SLURM_CPUS_ON_NODE", "1"))
    own = {"SRUN_CPUS_PER_TASK": cores_of_task} if cores_of_task else {}  # srun does not take it over by itself
    worker = (site_python(site, python), "-m", WORKER, str(spec.folder / "run.json"))
    environment = worker_environment(spec, num_cores, clean) | own | step_environment(site, env)
    return Plan((*step, *worker), environment, Signals.SIGUSR1)  # at SIGTERM, srun and mpirun kill their ranks


def worker_environment(spec: RunSpec, num_cores: int, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run's ranks."""
    return rank_environment(spec.procs_per_node, num_cores, env) | run_environment(spec)


def rank_environment(procs_per_node: int, num_cores: int, env: Mapping[str, str]) -> dict[str, str]:
    """`env` without another job's ranks, with the threads of a node's cores shared among its ranks."""
    inherited = {
        name: value
        for name, value in env.items()
        if name not in _INHERITED_RANK_VARIABLES
        and not name.startswith(_OF_OTHER_RANKS)
        and (name, value.lower()) != _OF_HOROVODRUN
    }
    threads = str(max(1, num_cores // procs_per_node))
    return inherited | {"OMP_NUM_THREADS": env.get("OMP_NUM_THREADS", threads)}
