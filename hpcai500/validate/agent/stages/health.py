"""Is the node fit for work? What its host and its GPUs say of themselves, held against what every node must have."""

from collections.abc import Iterator

from hpcai500.validate.agent.seat import Found, Place
from hpcai500.validate.agent.stages.health_gpu import gpu_health
from hpcai500.validate.agent.stages.health_host import clock, limits, memory_and_disks, shared_folder


def run(place: Place) -> Iterator[Found]:
    yield from memory_and_disks(place)
    yield from limits(place)
    yield from gpu_health(place)
    yield from clock(place)
    yield from shared_folder(place)
