"""The ranks of MPI's world, on the host's memory."""

from typing import TypeVar

import torch

from hpcai500.errors import MachineError
from hpcai500.launch.software import HOW_TO_GET_MPI4PY
from hpcai500.ranks.operations import MpiOperations, Operations
from hpcai500.ranks.torch_ranks import first_line, require_size

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:  # not installed, or without an MPI library
    raise MachineError(f"mpi4py cannot be imported: {first_line(error)}", HOW_TO_GET_MPI4PY) from error

T = TypeVar("T")


class MpiRanks:
    def __init__(self, expected_size: int, launcher: str) -> None:
        """Join the other ranks.

        Raises:
            RankError: if the world has another size.
        """
        self.communicator = MPI.COMM_WORLD
        self.rank, self.size = self.communicator.Get_rank(), self.communicator.Get_size()
        require_size(expected_size, self.size, launcher, "MPI")
        node = self.communicator.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = node.Get_rank(), node.Get_size()
        self.device = torch.device("cpu")

    def broadcast(self, value: T) -> T:
        received: T = self.communicator.bcast(value)
        return received

    def gather(self, value: T) -> list[T]:
        return self.communicator.gather(value) or []

    def barrier(self) -> None:
        self.communicator.Barrier()

    def close(self) -> None:
        pass  # mpi4py finalises MPI when the process ends

    def operations(self) -> Operations:
        return MpiOperations(self.communicator)
