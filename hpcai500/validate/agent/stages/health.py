"""Health of a node: reports of its host and GPUs, compared with what every node must have."""

from collections.abc import Iterator

from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.agent.stages.health_gpu import gpu_health
from hpcai500.validate.agent.stages.health_host import clock, limits, memory_and_disks, shared_folder
from hpcai500.validate.files import Observation


def run(seat: Seat) -> Iterator[Observation]:
    yield from memory_and_disks(seat)
    yield from limits(seat)
    yield from gpu_health(seat)
    yield from clock(seat)
    yield from shared_folder(seat)
