"""The collectives of torch.distributed, Horovod and MPI, under the same names."""

from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Operations(Protocol):
    """A communication library's collectives on flat float32 tensors on the ranks' device."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks; it may overwrite `tensor`."""

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, concatenated in rank order."""

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rank 0's `tensor`; may overwrite the others'."""

    def all_to_all(self, tensor: torch.Tensor) -> torch.Tensor:
        """Part r of every rank's `tensor`, in rank order, on rank r; parts are equal."""


class Group(Protocol):
    """Ranks that can measure collectives. `Ranks` has more methods."""

    rank: int
    size: int
    device: torch.device

    def broadcast(self, value: T) -> T: ...

    def gather(self, value: T) -> list[T]: ...

    def barrier(self) -> None: ...

    def close(self) -> None: ...

    def operations(self) -> Operations:
        """The collectives of the ranks' communication library."""


class TorchOperations:
    def __init__(self, size: int, group: Any = None, root: int = 0) -> None:
        """Use `group` (all ranks by default), whose first member is rank `root` of all ranks."""
        self._size, self._group, self._root = size, group, root

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(tensor, group=self._group)
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        gathered = tensor.new_empty(self._size * len(tensor))
        dist.all_gather_into_tensor(gathered, tensor, group=self._group)
        return gathered

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        dist.broadcast(tensor, src=self._root, group=self._group)
        return tensor

    def all_to_all(self, tensor: torch.Tensor) -> torch.Tensor:
        received = torch.empty_like(tensor)
        dist.all_to_all_single(received, tensor, group=self._group)
        return received


class HorovodOperations:
    """Horovod's collectives. Each operation reuses its name, since new names would fill Horovod's response cache."""

    def __init__(self) -> None:
        import horovod.torch as hvd

        self._hvd = hvd

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        reduced: torch.Tensor = self._hvd.allreduce_(tensor, op=self._hvd.Sum, name="micro_all_reduce")
        return reduced

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        gathered: torch.Tensor = self._hvd.allgather(tensor, name="micro_all_gather")
        return gathered

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        sent: torch.Tensor = self._hvd.broadcast_(tensor, root_rank=0, name="micro_broadcast")
        return sent

    def all_to_all(self, tensor: torch.Tensor) -> torch.Tensor:
        received: torch.Tensor = self._hvd.alltoall(tensor, name="micro_all_to_all")
        return received


class MpiOperations:
    """MPI's own collectives, in host memory."""

    def __init__(self, communicator: Any) -> None:
        from mpi4py import MPI

        self._world, self._in_place = communicator, MPI.IN_PLACE

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        self._world.Allreduce(self._in_place, tensor.numpy())
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        gathered = tensor.new_empty(self._world.Get_size() * len(tensor))
        self._world.Allgather(tensor.numpy(), gathered.numpy())
        return gathered

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        self._world.Bcast(tensor.numpy(), root=0)
        return tensor

    def all_to_all(self, tensor: torch.Tensor) -> torch.Tensor:
        received = torch.empty_like(tensor)
        self._world.Alltoall(tensor.numpy(), received.numpy())
        return received
