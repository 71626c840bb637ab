"""The decision on the layout of a command's ranks: on the nodes of the allocation around it, or on this machine."""

from collections.abc import Mapping
from typing import NamedTuple

from hpcai500.errors import SpecError
from hpcai500.launch.layout import Allocation, Layout, ranks_of
from hpcai500.launch.registry import choose_launcher, find_launcher, launchers
from hpcai500.spec.models import parse
from hpcai500.spec.site import Site
from hpcai500.system.devices import num_gpus


class Wanted(NamedTuple):
    """The part of a layout that the command line gives."""

    backend: str
    launcher: str | None = None
    nodes: int | None = None
    procs_per_node: int | None = None
    on_gpus: bool = True
    """Whether ranks may use GPUs; there is then one rank per GPU by default."""


def decide(
    wanted: Wanted, site: Site, allocation: Allocation | None, env: Mapping[str, str]
) -> tuple[Layout, Allocation | None]:
    """The layout on the nodes of `allocation`, or else on this machine; and the allocation, if the layout uses it.

    Raises:
        SpecError: if `env` shows that another launcher started this command several times.
        SpecError: if the launcher cannot start the wanted ranks.
    """
    _require_started_once(env)
    asked = choose_launcher(wanted.launcher) if wanted.launcher else None
    if allocation and asked and not asked.uses_allocation:
        if allocation.num_nodes > 1 and not asked.means_here:
            raise SpecError(
                f"--launcher {asked.name} starts ranks on this machine only, "
                f"and the allocation has {allocation.num_nodes} nodes",
                "leave it out, or use --launcher mpirun",
            )
        allocation = None
    layout = _in_allocation(wanted, site, allocation) if allocation else _here(wanted)
    find_launcher(layout.launcher).require(layout, site, env, in_allocation=allocation is not None)
    return layout, allocation


def _here(wanted: Wanted) -> Layout:
    default = max(1, num_gpus()) if wanted.on_gpus else 1
    return parse(
        Layout,
        {
            "launcher": wanted.launcher or _default_launcher(wanted.backend),
            "backend": wanted.backend,
            "nodes": wanted.nodes or 1,
            "procs_per_node": default if wanted.procs_per_node is None else wanted.procs_per_node,
        },
        "the ranks",
    )


def _default_launcher(backend: str) -> str:
    """The default launcher for ranks of `backend` on this machine."""
    return next(each.name for each in launchers().values() if backend in each.default_of)


def _in_allocation(wanted: Wanted, site: Site, allocation: Allocation) -> Layout:
    procs_per_node, num_ranks = ranks_of(allocation, wanted.procs_per_node)
    nodes = allocation.num_nodes if wanted.nodes is None else wanted.nodes
    if nodes > allocation.num_nodes:
        raise SpecError(f"--nodes {nodes}: the allocation has {allocation.num_nodes}", "ask Slurm for more")
    return parse(
        Layout,
        {
            "launcher": wanted.launcher or _job_launcher(wanted.backend, site),
            "backend": wanted.backend,
            "nodes": nodes,
            "procs_per_node": procs_per_node,
            "num_ranks": num_ranks if nodes == allocation.num_nodes else 0,
        },
        "the ranks",
    )


def _job_launcher(backend: str, site: Site) -> str:
    """The site's launcher, unless `backend` has its own launcher that reaches all nodes."""
    own = (each.name for each in launchers().values() if backend in each.default_of and each.uses_allocation)
    return next(own, site.slurm.launcher)


def _require_started_once(env: Mapping[str, str]) -> None:
    for launcher in launchers().values():
        if (times := launcher.num_copies(env)) > 1:
            raise SpecError(
                f"{launcher.program} started this command {times} times",
                "start it once, in the job script or salloc: it starts the ranks itself, see --launcher",
            )
