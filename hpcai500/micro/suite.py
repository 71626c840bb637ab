"""The parts of a micro-benchmark that one command asks for, measured one after another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcai500.launch.allocation.slurm import read_allocation
from hpcai500.launch.decision import Wanted, decide
from hpcai500.launch.environment import this_machine
from hpcai500.launch.layout import Layout
from hpcai500.launch.requirements import require_software
from hpcai500.micro.document import MicroDocument, describe
from hpcai500.micro.launching import SIZES, CollectivesRequest, start_collectives
from hpcai500.micro.sample import MicroResults, Part
from hpcai500.spec.models import parse
from hpcai500.spec.site import Site
from hpcai500.spec.workload import shipped_workloads
from hpcai500.system.devices import num_gpus
from hpcai500.system.host import host_name

_SHARES: dict[Part, float] = {"kernels": 0.45, "workloads": 0.35, "storage": 0.2, "collectives": 1.0}
"""Shares of the time that parts get if they are measured together."""
_PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What is measured, and for how long."""

    parts: tuple[Part, ...]
    budget_sec: float
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precisions: tuple[str, ...] = ()
    """Empty: all for kernels, its own for each workload."""
    workloads: tuple[str, ...] = ()
    """Empty: all shipped ones."""
    problem: str = "mini"
    folder: Path = Path()
    """Where storage is measured and the ranks of collectives meet."""
    data: Path | None = None
    """A prepared data set that storage reads too."""
    ranks: Wanted
    """The ranks of collectives."""
    sizes: tuple[int, ...] = SIZES
    """Bytes of the arrays of collectives."""
    site: Site
    quiet: bool = False


def measure(suite: Suite) -> MicroDocument:
    """The samples of all parts.

    Raises:
        HpcAi500Error: for a part that cannot be measured here.
    """
    device = device_of(suite.device)
    found, ranks = MicroResults(), dict[str, Any]()
    total = sum(_SHARES[part] for part in suite.parts)
    for part in suite.parts:
        budget_sec = suite.budget_sec * _SHARES[part] / total
        if part == "kernels":
            found += _kernels(suite, device, budget_sec)
        elif part == "workloads":
            found += _workloads(suite, device, budget_sec)
        elif part == "storage":
            found += _storage(suite, budget_sec)
        else:
            measured, ranks = _collectives(suite, budget_sec)
            found += measured
    return describe(host_name(), device, found, **ranks)


def device_of(name: str) -> str:
    """The device that `auto` names here; any other name as it is."""
    if name == "auto":
        return "cuda" if num_gpus() else "cpu"
    return name


# Parts import what they run: collectives of MPI need no torch.


def _kernels(suite: Suite, device: str, budget_sec: float) -> MicroResults:
    from hpcai500.micro.compute import measure_compute

    return measure_compute(device, budget_sec=budget_sec, precisions=suite.precisions or _PRECISIONS)


def _workloads(suite: Suite, device: str, budget_sec: float) -> MicroResults:
    """Each workload in the precision that it trains in by default, or in those that were asked for."""
    from hpcai500.micro.compute import find_device
    from hpcai500.micro.passes import default_precision
    from hpcai500.micro.workload_kernels import measure_workload

    on = find_device(device)
    names = suite.workloads or tuple(folder.name for folder in shipped_workloads())
    found = MicroResults()
    for name in names:
        precisions = suite.precisions or (default_precision(name, suite.problem),)
        for precision in precisions:
            share_sec = budget_sec / len(names) / len(precisions)
            found += measure_workload(name, suite.problem, on, precision=precision, budget_sec=share_sec)
    return found


def _storage(suite: Suite, budget_sec: float) -> MicroResults:
    from hpcai500.micro.storage import measure_prepared, measure_storage

    if suite.data is None:
        return measure_storage(suite.folder, budget_sec=budget_sec)
    found = measure_storage(suite.folder, budget_sec=budget_sec / 2)
    return found + measure_prepared(suite.data, budget_sec=budget_sec / 2)


def _collectives(suite: Suite, budget_sec: float) -> tuple[MicroResults, dict[str, Any]]:
    """What the ranks measured, and how they were started."""
    machine = this_machine()
    device = suite.device.partition(":")[0]
    backend = suite.ranks.backend
    wanted = suite.ranks._replace(on_gpus=device != "cpu" and backend != "mpi")
    layout, allocation = decide(wanted, suite.site, read_allocation(machine.env), machine.env)
    require_software(backend, layout.launcher)
    layout = parse(Layout, layout.model_dump() | {"device": device}, "--device")
    record = {"layout": layout.model_dump(), "sizes": suite.sizes, "budget_sec": budget_sec}
    request = parse(CollectivesRequest, record, "the request to the ranks")
    in_allocation = allocation is not None
    found = start_collectives(
        request, suite.folder, suite.site, machine, in_allocation=in_allocation, quiet=suite.quiet
    )
    return found, {
        "backend": layout.backend,
        "launcher": layout.launcher,
        "nodes": layout.nodes,
        "num_ranks": layout.world_size,
    }
