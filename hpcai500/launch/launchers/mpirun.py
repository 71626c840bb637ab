"""Open MPI's mpirun, on this machine or on the nodes of an allocation."""

from collections.abc import Iterator, Mapping
from signal import Signals

from hpcai500.errors import SpecError
from hpcai500.launch.container import container_tokens
from hpcai500.launch.launcher import Launcher, RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.software import HOW_TO_GET_MPI4PY, has_package, has_program
from hpcai500.spec.site import Site


class Mpirun(Launcher):
    name = "mpirun"
    program = "mpirun"
    default_of = ("mpi",)
    uses_allocation = True
    gets_job_signals = False
    is_exclusive = True
    rendezvous = "mpi"
    rank_variables = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
    size_variables = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
    stop_signal = Signals.SIGUSR1  # at SIGTERM it kills its ranks

    def tokens(self, start: RankStart) -> tuple[str, ...]:
        """`mpirun` and its options.

        Ranks are not bound to cores, so that each has the threads of its share of the node. They may
        outnumber the slots of a node.
        """
        layout = start.layout
        mapping = "slot" if layout.num_ranks else f"ppr:{layout.procs_per_node}:node"
        mapped = ("--map-by", f"{mapping}:oversubscribe", "--bind-to", "none")
        tokens = ["mpirun", "-np", str(layout.world_size), *mapped]
        tokens += ["--allow-run-as-root"] if start.as_root else []
        if not start.in_allocation:  # a default of Open MPI may name other hosts
            return (*tokens, "--host", f"localhost:{layout.procs_per_node}")
        container = container_tokens(start.site, start.folders, start.snapshot)
        return (*tokens, *start.site.slurm.mpirun_arguments, *container)

    def environment(self, start: RankStart, env: Mapping[str, str]) -> dict[str, str]:
        """The fabric's interface in an allocation, or the loopback on this machine; and no progress bar.

        mpirun itself uses the interface only on a node, since a login node may not have it.
        """
        quiet = {"TQDM_DISABLE": "1"}  # ranks have a terminal even if mpirun has none
        if not start.in_allocation:
            return quiet | {"GLOO_SOCKET_IFNAME": "lo"}
        interface = start.site.software.network_interface
        parts = ("btl", "oob") if "SLURMD_NODENAME" in env else ("btl",)
        return quiet | ({f"OMPI_MCA_{part}_tcp_if_include": interface for part in parts} if interface else {})

    def missing(self, backend: str, *, packages_only: bool = False) -> Iterator[tuple[str, str]]:
        if not packages_only and not has_program("mpirun"):
            yield "mpirun", "`apt install openmpi-bin`, or `module load openmpi`"
        if backend in ("torch", "mpi") and not has_package("mpi4py"):
            yield "mpi4py", HOW_TO_GET_MPI4PY

    def require(self, layout: Layout, site: Site, env: Mapping[str, str], *, in_allocation: bool) -> None:
        super().require(layout, site, env, in_allocation=in_allocation)
        if "OMPI_COMM_WORLD_SIZE" in env:
            raise SpecError(
                "mpirun started this command, and cannot start another mpirun in it", "start it without mpirun"
            )

    def wrong_size_remedy(self, library: str) -> str:
        return (
            f"its MPI library differs from this mpirun's: load the one that {library} was built with, or "
            "`make horovod` again with this one"
        )


LAUNCHER = Mpirun()
