"""The Slurm allocation that a command runs in, read from its environment."""

import re
from collections.abc import Mapping

from hpcai500.errors import SpecError
from hpcai500.launch.launchers.srun import expand_counts
from hpcai500.launch.layout import Allocation


def read_allocation(env: Mapping[str, str]) -> Allocation | None:
    """The allocation around us; None outside of one.

    Tasks are those that the user asked for, or else one per GPU, or one per node without GPUs.

    Raises:
        SpecError: for variables with values that Slurm does not write.
    """
    if "SLURM_JOB_ID" not in env:
        return None
    try:
        return _read(env)
    except ValueError as error:
        raise SpecError(
            f"SLURM_JOB_ID is set, but not as Slurm sets its variables: {error}",
            "unset the variables of a job that has ended, or start in an allocation",
        ) from error


def _read(env: Mapping[str, str]) -> Allocation:
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
    """The number of the job around us; `12_3` for a task of an array."""
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env["SLURM_JOB_ID"]


def _count_gpus(env: Mapping[str, str]) -> int:
    """GPUs on this node, from the variable that this version of Slurm sets."""
    text = env.get("SLURM_GPUS_ON_NODE", "")
    if text.isdigit():
        return int(text)
    total = env.get("SLURM_GPUS", "").rpartition(":")[2]
    if total.isdigit():
        return int(total) // int(env.get("SLURM_JOB_NUM_NODES", "1"))
    per_node = re.search(r"(\d+)$", env.get("SLURM_GPUS_PER_NODE", ""))
    return int(per_node[1]) if per_node else 0
