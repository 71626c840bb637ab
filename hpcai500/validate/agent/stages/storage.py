"""Speed of the shared file system on each node: one node at a time, and all nodes at once."""

from collections.abc import Iterator, Sequence

from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation, Trouble

BUDGET_SEC = {1: 3.0, 2: 15.0, 3: 30.0}
"""Time for one node and one measurement, by level."""
MOST_ALONE = {1: 4, 2: 16, 3: 64}
"""Number of nodes measured one after the other, by level; spread evenly over a larger partition."""
LEFT_OUT = "storage_metadata_create_per_sec"
"""Metric that depends on what anyone removed there seconds before (see `measure_metadata`)."""


def run(seat: Seat) -> Iterator[Observation]:
    for node in spread_evenly(seat.members, MOST_ALONE[seat.plan.level]):
        seat.step("storage", f"{node} alone")
        seat.wait(f"storage: {node} alone")
        if seat.node == node:
            yield from run_children(seat, "storage", [("alone",)])
    if len(seat.members) > 1:
        seat.step("storage", "all at once")
        seat.wait("storage: all at once")
        yield from run_children(seat, "storage", [("together",)])


def measure(seat: Seat, company: str) -> Iterator[Observation]:
    """In a child process; `company` is the prefix of the metrics' names."""
    from hpcai500.micro.storage import measure_storage

    folder = seat.folder / "storage" / seat.node
    folder.mkdir(parents=True, exist_ok=True)
    found = measure_storage(folder, budget_sec=BUDGET_SEC[seat.plan.level])
    for sample in (each for each in found.samples if each.metric != LEFT_OUT):
        if not sample.correct:
            yield Trouble(
                stage="storage", nodes=(seat.node,), kind="wrong_result", metric=sample.metric,
                message=f"{sample.name}: the data read back differ from the data written",
                remedy="check dmesg on the node and the file system's own log before anyone trusts its data",
            )  # fmt: skip
        yield Measurement(
            stage="storage", metric=f"{company}_{sample.metric}", unit=sample.unit, value=sample.value,
            better=sample.better, nodes=(seat.node,), detail=sample.detail,
        )  # fmt: skip


def spread_evenly(nodes: Sequence[str], most: int) -> list[str]:
    """Up to `most` of `nodes`, with the first and the last if `most` is at least two."""
    if len(nodes) <= most:
        return list(nodes)
    return [nodes[round(index * (len(nodes) - 1) / (most - 1))] for index in range(most)]
