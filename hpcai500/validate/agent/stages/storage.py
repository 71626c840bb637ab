"""The shared file system, as each node reads and writes it: alone, and with all others at work too."""

from collections.abc import Iterator, Sequence

from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.seat import Found, Place
from hpcai500.validate.files import Measurement, Trouble

BUDGET_SEC = {1: 3.0, 2: 15.0, 3: 30.0}
"""Of a node, each time, by level."""
MOST_ALONE = {1: 4, 2: 16, 3: 64}
"""Nodes that are measured alone, one after the other; of more nodes, so many spread evenly over them."""
LEFT_OUT = "storage_metadata_create_per_sec"
"""Its time depends on what was removed there in the seconds before, by whomever (see `measure_metadata`)."""


def run(place: Place) -> Iterator[Found]:
    for node in spread_evenly(place.members, MOST_ALONE[place.plan.level]):
        place.step("storage", f"{node} alone")
        place.wait(f"storage: {node} alone")
        if place.node == node:
            yield from run_children(place, "storage", [("alone",)])
    if len(place.members) > 1:
        place.step("storage", "all at once")
        place.wait("storage: all at once")
        yield from run_children(place, "storage", [("together",)])


def measure(place: Place, company: str) -> Iterator[Found]:
    """In a process of its own; `company` begins the metrics' names."""
    from hpcai500.micro.storage import measure_storage

    folder = place.folder / "storage" / place.node
    folder.mkdir(parents=True, exist_ok=True)
    found = measure_storage(folder, budget_sec=BUDGET_SEC[place.plan.level])
    for sample in (each for each in found.samples if each.metric != LEFT_OUT):
        if not sample.correct:
            yield Trouble(
                stage="storage", nodes=(place.node,), kind="wrong_result", metric=sample.metric,
                message=f"{sample.name}: what was read is not what was written",
                remedy="see dmesg on the node and the file system's own log, before anyone trusts its data",
            )  # fmt: skip
        yield Measurement(
            stage="storage", metric=f"{company}_{sample.metric}", unit=sample.unit, value=sample.value,
            better=sample.better, nodes=(place.node,), detail=sample.detail,
        )  # fmt: skip


def spread_evenly(nodes: Sequence[str], most: int) -> list[str]:
    """At most so many of `nodes`, the first and the last among them where `most` allows two."""
    if len(nodes) <= most:
        return list(nodes)
    return [nodes[round(index * (len(nodes) - 1) / (most - 1))] for index in range(most)]
