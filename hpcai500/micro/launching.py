"""Starting ranks that measure collectives, by the launchers of runs."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hpcai500.errors import SpecError
from hpcai500.files import read_json, storage, write_atomic
from hpcai500.launch.mpi import horovodrun_tokens, local_mpirun_tokens, mpirun_environment
from hpcai500.launch.plan import Plan, rank_environment
from hpcai500.launch.process import execute
from hpcai500.launch.slurm.script import site_python, step_environment, step_tokens
from hpcai500.micro.sample import Findings
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.site import Site
from hpcai500.spec.workload import Count

WORKER = "hpcai500.micro.worker"
FINDINGS = "findings.json"
SIZES = (8, 1 << 10, 1 << 20, 16 << 20)
"""Bytes, by nccl-tests' meaning: of the whole array, of which a rank sends or receives a part where it is parted."""

Bytes = Annotated[int, Field(ge=1)]


class Request(Frozen):
    """`request.json`: what the ranks are to measure, and how they were started."""

    backend: Literal["torch", "horovod", "mpi"]
    launcher: Literal["local", "mpirun", "horovodrun", "srun"]
    nodes: Count
    procs_per_node: Count
    num_ranks: Annotated[int, Field(ge=0)] = 0
    """In all, where nodes hold different numbers of them; 0: `nodes * procs_per_node`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sizes: tuple[Bytes, ...] = SIZES
    budget_sec: Annotated[float, Field(gt=0)]

    @property
    def world_size(self) -> int:
        return self.num_ranks or self.nodes * self.procs_per_node


def read_request(path: Path) -> Request:
    return parse(Request, read_json(path), path)


def start_collectives(request: Request, folder: Path, site: Site, *, in_allocation: bool, quiet: bool) -> Findings:
    """Start the ranks, in the allocation around us or on this machine, and read what they found.

    `folder` must be shared by the nodes; files are left there in a folder of their own until the ranks have ended.

    Raises:
        HpcAi500Error: with the first rank's reason, if they fail.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hpcai500-micro-", dir=folder) as name:
            path = Path(name).absolute() / "request.json"
            write_atomic(path, request.model_dump_json(indent=2) + "\n")
            planned = plan_in_allocation if in_allocation else plan_here
            plan = planned(request, path, site, python=sys.executable, env=os.environ, as_root=os.geteuid() == 0)
            failure = execute(plan, path.parent / "stderr.log", quiet=quiet)
            if failure:
                raise failure
            return parse(Findings, read_json(path.parent / FINDINGS), "the ranks' findings")


def plan_here(
    request: Request, path: Path, site: Site, *, python: str, env: Mapping[str, str], as_root: bool
) -> Plan:
    """All ranks on this machine.

    Raises:
        SpecError: if this launcher starts no ranks of this backend.
    """
    ranks = rank_environment(request.procs_per_node, len(os.sched_getaffinity(0)), env)
    lo = {"GLOO_SOCKET_IFNAME": "lo"}
    worker = ("-m", WORKER, str(path))
    if request.launcher == "mpirun":
        step = local_mpirun_tokens(request.procs_per_node, as_root=as_root)
        return Plan((*step, python, *worker), ranks | mpirun_environment() | lo)
    if request.launcher == "horovodrun" and request.backend == "horovod":
        return Plan((*horovodrun_tokens(python, request.world_size), python, *worker), ranks)
    if request.launcher == "local" and request.backend == "torch":
        torchrun = (
            python,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={request.procs_per_node}",
        )
        return Plan((*torchrun, "--module", *worker[1:]), ranks | lo)
    raise SpecError(
        f"launcher {request.launcher} starts no ranks of backend {request.backend} here",
        "mpirun starts all three; local starts torch, horovodrun starts horovod",
    )


def plan_in_allocation(
    request: Request, path: Path, site: Site, *, python: str, env: Mapping[str, str], as_root: bool
) -> Plan:
    """All ranks on the nodes of the allocation that `env` tells of."""
    step = step_tokens(
        site,
        nodes=request.nodes,
        procs_per_node=request.procs_per_node,
        num_ranks=request.num_ranks,
        folders=(str(path.parent),),
        as_root=as_root,
    )
    # What an enclosing step was bound to, and how it was laid out, is not for this one.
    stale = ("SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_DISTRIBUTION", "SLURM_STEP", "PMI")
    clean = {name: value for name, value in env.items() if not name.startswith(stale)}
    cores = env.get("SLURM_CPUS_PER_TASK", "")
    num_cores = request.procs_per_node * int(cores) if cores else int(env.get("SLURM_CPUS_ON_NODE", "1"))
    own = {"SRUN_CPUS_PER_TASK": cores} if cores else {}
    environment = rank_environment(request.procs_per_node, num_cores, clean) | own | step_environment(site, env)
    return Plan((*step, site_python(site, python), "-m", WORKER, str(path)), environment)
