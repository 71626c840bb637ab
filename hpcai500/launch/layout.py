"""The layout of ranks: how many on how many nodes, what starts them and what connects them."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from hpcai500.errors import SpecError
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.run import RunSpec
from hpcai500.spec.workload import Count


class Layout(Frozen):
    launcher: str = "local"
    """A name from `hpcai500.launch.launchers`."""
    backend: Literal["torch", "horovod", "mpi"] = "torch"
    """The communication library. `mpi` (mpi4py) only measures collectives."""
    nodes: Count = 1
    procs_per_node: Count = 1
    """Ranks per node; on the fullest node if they differ."""
    num_ranks: Annotated[int, Field(ge=0)] = 0
    """Total number of ranks, if nodes have different numbers of them; 0 for `nodes * procs_per_node`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compression: Literal["none", "fp16"] = "none"
    """The precision in which gradients are sent."""

    @property
    def world_size(self) -> int:
        return self.num_ranks or self.nodes * self.procs_per_node


class Allocation(NamedTuple):
    """The nodes that a scheduler has given to the job around us."""

    job_id: str
    tasks_per_node: tuple[int, ...]
    """Tasks of each node, in the scheduler's order."""
    gpus_per_node: int
    """GPUs per node; 0 if the job asked for none."""
    cluster: str
    """The scheduler's name of the cluster; may be empty."""
    cpus_per_node: int = 0
    """Logical CPUs of the smallest node; 0 if the scheduler does not report them."""

    @property
    def num_nodes(self) -> int:
        return len(self.tasks_per_node)


def layout_of(spec: RunSpec) -> Layout:
    execution = spec.settings.execution
    record = {
        "launcher": spec.launcher,
        "backend": spec.backend,
        "nodes": spec.nodes,
        "procs_per_node": spec.procs_per_node,
        "num_ranks": spec.num_ranks,
        "device": execution.device,
        "compression": execution.gradient_compression,
    }
    return parse(Layout, record, "run.json")


def ranks_of(allocation: Allocation, wanted: int | None) -> tuple[int, int]:
    """`(procs_per_node, num_ranks)` of a RunSpec for this allocation; `wanted` ranks per node replace its tasks."""
    counts = allocation.tasks_per_node
    most = wanted or max(counts)
    if 0 < allocation.cpus_per_node < most and (wanted or min(counts) == most):
        raise SpecError(
            f"the allocation has {allocation.cpus_per_node} CPUs per node for {most} ranks",
            f"give sbatch or salloc --ntasks-per-node={most} and --cpus-per-task",
        )
    if wanted is not None:
        return wanted, 0
    if min(counts) < 1:
        raise SpecError("the allocation has a node without a task", "ask for at least as many tasks as nodes")
    most, total = max(counts), sum(counts)
    return most, 0 if total == most * len(counts) else total
