"""Some of torch.distributed's ranks as a separate group, such as a pair or the first half."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from hpcai500.ranks.operations import Operations, TorchOperations
from hpcai500.ranks.torch_ranks import TorchRanks

T = TypeVar("T")


class Subset:
    """`members` of `ranks`, numbered from 0 in their order."""

    def __init__(self, ranks: TorchRanks, members: Sequence[int]) -> None:
        self.group: Any = dist.new_group(list(members), use_local_synchronization=True)
        self.members = tuple(members)
        self.root = members[0]
        """The rank, among all ranks, of member 0."""
        self.rank, self.size, self.device = self.members.index(ranks.rank), len(members), ranks.device

    def broadcast(self, value: T) -> T:
        box = [value if self.rank == 0 else None]
        dist.broadcast_object_list(box, src=self.root, group=self.group)
        return box[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        box: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, box, dst=self.root, group=self.group)
        return box or []

    def barrier(self) -> None:
        dist.barrier(group=self.group)

    def close(self) -> None:
        dist.destroy_process_group(self.group)

    def operations(self) -> Operations:
        return TorchOperations(self.size, self.group, self.root)


@contextmanager
def subset(ranks: TorchRanks, members: Sequence[int]) -> Iterator[Subset]:
    """A group of `members`, in ascending order. Only members call it; the others need not wait."""
    found = Subset(ranks, members)
    try:
        yield found
    finally:
        found.close()
