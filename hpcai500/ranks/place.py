"""What a launcher tells a process of its place among the ranks, through the environment."""

from collections.abc import Mapping
from typing import NamedTuple

from hpcai500.errors import RankError
from hpcai500.launch.allocation.slurm import expand_counts


class RankEnvironment(NamedTuple):
    """One process's place."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    """Ranks on this node."""
    start: str = ""
    """A name that the ranks of one start share and no other start has; empty where torchrun brings them together."""


def read_environment(launcher: str, env: Mapping[str, str]) -> RankEnvironment:
    """The place of this process, as `launcher` (a RunSpec's) wrote it into `env`.

    Raises:
        RankError: if the launcher did not start this process.
    """
    reader = _slurm if launcher == "srun" else _torchrun
    try:
        return reader(env)
    except (KeyError, ValueError) as error:
        raise RankError(
            f"launcher {launcher} left no {error} in the environment",
            "start runs with `hpcai500 run` or a job script",
        ) from error


_RANK = {
    "local": ("RANK",),
    "srun": ("SLURM_PROCID",),
    "mpirun": ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"),
    "horovodrun": ("HOROVOD_RANK",),
}
_SIZE = {
    "local": ("WORLD_SIZE",),
    "srun": ("SLURM_STEP_NUM_TASKS",),
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
    "horovodrun": ("HOROVOD_SIZE",),
}


def launched_rank(launcher: str, env: Mapping[str, str]) -> int:
    """This process's rank by its launcher's word; 0 where that says nothing."""
    return next((int(env[name]) for name in _RANK[launcher] if env.get(name, "").isdigit()), 0)


def launched_size(launcher: str, env: Mapping[str, str]) -> int | None:
    """How many ranks the launcher started, by its own word; None where it says nothing."""
    return next((int(env[name]) for name in _SIZE[launcher] if env.get(name, "").isdigit()), None)


def size_by_other_launcher(launcher: str, env: Mapping[str, str]) -> tuple[str, int] | None:
    """Another launcher than the run's, and how many processes of several it started; None where there is none.

    Not srun, which starts mpirun's own daemons.
    """
    others = ((other, launched_size(other, env)) for other in ("mpirun", "horovodrun") if other != launcher)
    return next(((other, size) for other, size in others if size is not None and size > 1), None)


def _torchrun(env: Mapping[str, str]) -> RankEnvironment:
    if "RANK" not in env:
        return RankEnvironment(0, 1, 0, 1)
    return RankEnvironment(
        int(env["RANK"]), int(env["WORLD_SIZE"]), int(env["LOCAL_RANK"]), int(env["LOCAL_WORLD_SIZE"])
    )


def _slurm(env: Mapping[str, str]) -> RankEnvironment:
    """Of a task that srun started; nodes may hold different numbers of tasks."""
    counts = expand_counts(env["SLURM_STEP_TASKS_PER_NODE"])
    restart = env.get("SLURM_RESTART_COUNT", "0")
    return RankEnvironment(
        rank=int(env["SLURM_PROCID"]),
        size=int(env["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(env["SLURM_LOCALID"]),
        local_size=counts[int(env["SLURM_NODEID"])],
        start=f"slurm-{env['SLURM_JOB_ID']}-{env['SLURM_STEP_ID']}-{restart}",
    )
