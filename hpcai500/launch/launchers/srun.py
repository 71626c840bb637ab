"""Slurm's srun, on the nodes of an allocation."""

import re
from collections.abc import Iterator, Mapping
from signal import Signals

from hpcai500.errors import SpecError
from hpcai500.launch.container import container_tokens
from hpcai500.launch.launcher import Launcher, RankEnvironment, RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.software import has_program
from hpcai500.spec.site import Site


class Srun(Launcher):
    name = "srun"
    program = "srun"
    starts_here = False
    uses_allocation = True
    rank_variables = ("SLURM_PROCID",)
    size_variables = ("SLURM_STEP_NUM_TASKS",)
    stop_signal = Signals.SIGUSR1  # at SIGTERM it kills its ranks

    def tokens(self, start: RankStart) -> tuple[str, ...]:
        layout, request = start.layout, start.site.slurm
        tokens = ["srun", f"--nodes={layout.nodes}", f"--ntasks={layout.world_size}"]
        if not layout.num_ranks:
            tokens.append(f"--ntasks-per-node={layout.procs_per_node}")
        if request.cpus_per_task:  # srun does not inherit it from sbatch
            tokens.append(f"--cpus-per-task={request.cpus_per_task}")
        tokens += ["--kill-on-bad-exit=1", "--wait=60", f"--mpi={request.mpi}", "--export=ALL"]
        container = container_tokens(start.site, start.folders, start.snapshot)
        return (*tokens, *request.srun_arguments, *container)

    def missing(self, backend: str, *, packages_only: bool = False) -> Iterator[tuple[str, str]]:
        if not packages_only and not has_program("srun"):
            yield "srun", "log in to a machine of a Slurm cluster"

    def rank_environment(self, env: Mapping[str, str]) -> RankEnvironment:
        counts = expand_counts(env["SLURM_STEP_TASKS_PER_NODE"])  # nodes may have different numbers of tasks
        restart = env.get("SLURM_RESTART_COUNT", "0")
        return RankEnvironment(
            rank=int(env["SLURM_PROCID"]),
            size=int(env["SLURM_STEP_NUM_TASKS"]),
            local_rank=int(env["SLURM_LOCALID"]),
            local_size=counts[int(env["SLURM_NODEID"])],
            start=f"slurm-{env['SLURM_JOB_ID']}-{env['SLURM_STEP_ID']}-{restart}",
        )

    def require(self, layout: Layout, site: Site, env: Mapping[str, str], *, in_allocation: bool) -> None:
        super().require(layout, site, env, in_allocation=in_allocation)
        if layout.backend != "torch" and site.slurm.mpi == "none":
            raise SpecError(
                f"backend {layout.backend} under srun needs a plugin of srun that starts MPI",
                "set `mpi` in the site's [slurm] to one that `srun --mpi=list` shows (pmix, pmi2), "
                "or launcher to mpirun",
            )

    def wrong_size_remedy(self, library: str) -> str:
        return (
            "srun's plugin does not fit the MPI library: set `mpi` in the site's [slurm] to another one that "
            '`srun --mpi=list` shows (pmix, pmi2), or launcher = "mpirun"'
        )


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


LAUNCHER = Srun()
