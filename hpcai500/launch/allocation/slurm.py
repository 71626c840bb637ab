"""The Slurm allocation that a command runs in, read from its environment."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from hpcai500.errors import SpecError


class Allocation(NamedTuple):
    job_id: str
    tasks_per_node: tuple[int, ...]
    """Tasks of each node, in Slurm's order."""
    gpus_per_node: int
    """0 where none were asked for."""
    cluster: str
    """Slurm's name of it; may be empty."""
    cpus_per_node: int = 0
    """Of the smallest node; 0 where Slurm does not say."""

    @property
    def num_nodes(self) -> int:
        return len(self.tasks_per_node)


def read_allocation(env: Mapping[str, str]) -> Allocation | None:
    """The allocation around us; None outside of one.

    Tasks are those that the user asked for; where nobody asked, one a GPU, or one a node without GPUs.
    """
    if "SLURM_JOB_ID" not in env:
        return None
    num_nodes = int(env.get("SLURM_JOB_NUM_NODES", env.get("SLURM_NNODES", "1")))
    gpus = _count_gpus(env)
    asked = any(name in env for name in ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE"))
    if asked and "SLURM_TASKS_PER_NODE" in env:
        tasks = expand_counts(env["SLURM_TASKS_PER_NODE"])
    else:
        tasks = (max(1, gpus),) * num_nodes
    cpus = env.get("SLURM_JOB_CPUS_PER_NODE")
    smallest = min(expand_counts(cpus)) if cpus else 0
    return Allocation(env["SLURM_JOB_ID"], tasks, gpus, env.get("SLURM_CLUSTER_NAME", ""), smallest)


def own_job_id(env: Mapping[str, str]) -> str:
    """The number of the job around us; of an array's task, `12_3`."""
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env["SLURM_JOB_ID"]


def expand_counts(text: str) -> tuple[int, ...]:
    """Slurm's `2(x3),1` as `(2, 2, 2, 1)`.

    Raises:
        ValueError: for anything else.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise ValueError(f"tasks per node {text!r}")
        counts.extend([int(match[1])] * int(match[2] or 1))
    return tuple(counts)


def _count_gpus(env: Mapping[str, str]) -> int:
    """GPUs on this node, by whichever variable Slurm's version sets."""
    text = env.get("SLURM_GPUS_ON_NODE", "")
    if text.isdigit():
        return int(text)
    total = env.get("SLURM_GPUS", "").rpartition(":")[2]
    if total.isdigit():
        return int(total) // int(env.get("SLURM_JOB_NUM_NODES", "1"))
    per_node = re.search(r"(\d+)$", env.get("SLURM_GPUS_PER_NODE", ""))
    return int(per_node[1]) if per_node else 0


def ranks_of(allocation: Allocation, wanted: int | None) -> tuple[int, int]:
    """`(procs_per_node, num_ranks)` of a RunSpec for this allocation; `wanted` ranks a node replace its own tasks."""
    counts = allocation.tasks_per_node
    most = wanted or max(counts)
    if 0 < allocation.cpus_per_node < most and (wanted or min(counts) == most):
        raise SpecError(
            f"the allocation has {allocation.cpus_per_node} CPUs a node for {most} ranks",
            f"give sbatch or salloc --ntasks-per-node={most} and --cpus-per-task",
        )
    if wanted is not None:
        return wanted, 0
    if min(counts) < 1:
        raise SpecError("the allocation has a node without a task", "ask for at least as many tasks as nodes")
    most, total = max(counts), sum(counts)
    return most, 0 if total == most * len(counts) else total
