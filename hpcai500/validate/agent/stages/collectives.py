"""Collectives over growing sets of nodes, 2, 4, 8 … and all: each node in a group of each size, all at once."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hpcai500.launch.launchers.per_node import PerNode, rank_variables
from hpcai500.launch.layout import Layout
from hpcai500.system.devices import num_gpus
from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.schedule import groups, growing_sizes
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation, Trouble

if TYPE_CHECKING:
    from hpcai500.micro.sample import Sample

BUDGET_SEC = {1: 4.0, 2: 15.0, 3: 30.0}
"""Time for one group, by level."""
SIZES = {1: (1 << 10, 1 << 20), 2: (1 << 10, 1 << 20, 1 << 24), 3: (1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 28)}
"""Message sizes in bytes, by level."""
_MOST_ON_HOST = 1 << 24
"""Limit between CPUs: with its copies for comparison, 256 MiB would take 2 GB per rank, more than a job may have."""
_NAMES = {
    1: ("all_reduce",),
    2: ("all_reduce", "all_gather"),
    3: ("all_reduce", "all_gather", "broadcast", "all_to_all"),
}


def run(seat: Seat) -> Iterator[Observation]:
    """One rank per GPU, or one per node without GPUs."""
    local_size = max(1, num_gpus())
    for size in growing_sizes(len(seat.members)):
        seat.step("collectives", f"{size} nodes")
        seat.wait(f"collectives: {size} nodes")
        for group in groups(seat.members, size):
            if seat.node in group:
                words = [(",".join(group), str(rank)) for rank in range(local_size)]
                first = group.index(seat.node) * local_size
                variables = rank_variables(first, local_size, local_size * len(group), f"{len(group)}-{group[0]}")
                yield from run_children(seat, "collectives", words, environments=variables)


def measure(seat: Seat, names: str, local_rank: str) -> Iterator[Observation]:
    """In a child process: one rank among those of the nodes `names`."""
    from hpcai500.micro.collectives import measure_collectives
    from hpcai500.ranks.joining import join
    from hpcai500.ranks.placement import take_cores
    from hpcai500.validate.agent.meeting import ADDRESSES

    group, ranks_a_node = names.split(","), max(1, num_gpus())
    layout = Layout(launcher=PerNode.name, nodes=len(group), procs_per_node=ranks_a_node)
    ranks = join(layout, seat.folder / ADDRESSES, os.environ)
    take_cores(ranks, os.environ)
    level = seat.plan.level
    sizes = [size for size in SIZES[level] if num_gpus() or size <= _MOST_ON_HOST]
    findings = measure_collectives(ranks, sizes=sizes, budget_sec=BUDGET_SEC[level], names=_NAMES[level])
    ranks.close()
    if ranks.rank:
        return
    nodes = tuple(sorted(group))
    for sample in findings.samples:
        if not sample.correct:
            yield Trouble(
                stage="collectives", nodes=blamed(sample, group, ranks_a_node), kind="wrong_result",
                metric=sample.metric,
                message=f"{sample.name} gives a wrong result over {len(group)} nodes",
                remedy="drain the node and test its memory and network: nothing that it sends can be trusted",
            )  # fmt: skip
        yield Measurement(
            stage="collectives", metric=sample.metric, unit=sample.unit, value=sample.value, better=sample.better,
            nodes=nodes, detail=sample.detail,
        )  # fmt: skip


def blamed(sample: "Sample", group: Sequence[str], ranks_a_node: int) -> tuple[str, ...]:
    """Nodes of the ranks that got a wrong result; the whole group if no rank is named."""
    return tuple(sorted({group[rank // ranks_a_node] for rank in sample.wrong_ranks})) or tuple(sorted(group))
