"""Ranks that communicate through Horovod: MPI or Gloo between CPUs, NCCL between GPUs if built with it."""

import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from hpcai500.errors import MachineError
from hpcai500.launch.software import HOW_TO_GET_HOROVOD
from hpcai500.ranks.operations import HorovodOperations, Operations
from hpcai500.ranks.torch_ranks import choose_device, first_line, require_size

try:
    import horovod.torch as hvd

    hvd.size  # noqa: B018 - built for another torch, it imports and is empty
except (ImportError, AttributeError) as error:
    raise MachineError(f"Horovod cannot be imported: {first_line(error)}", HOW_TO_GET_HOROVOD) from error

T = TypeVar("T")

_NOT_YET = 1 << 30
"""Backward passes before Horovod sends anything: practically never."""


class HorovodRanks:
    """The ranks of Horovod's world."""

    def __init__(self, device: str, launcher: str, expected_size: int, compression: str = "none") -> None:
        """Join the other ranks. `compression` of gradients is `none` or `fp16`."""
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        require_size(expected_size, self.size, launcher, "Horovod")
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self.device = choose_device(device, torch.cuda.device_count(), self.local_rank, self.local_size)
        if self.device.type == "cuda":
            if not hvd.nccl_built():
                raise MachineError(
                    "this Horovod was built without NCCL, so it works only between CPUs",
                    "run `make horovod` on a machine with a GPU, or use --set execution.device=cpu",
                )
            torch.cuda.set_device(self.device)
        self._compression = getattr(hvd.Compression, compression)
        self._asked: Any = None

    def wrap(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        # Not hvd.broadcast_optimizer_state: it creates the state by taking a step, which would affect the next ones.
        optimizer.load_state_dict(self.broadcast(optimizer.state_dict()))
        # A sum over many ranks may overflow fp16 although the mean does not: each rank divides before it sends.
        sends_halves = self._compression is hvd.Compression.fp16
        self._optimizer = hvd.DistributedOptimizer(
            optimizer,
            named_parameters=_trained(model, optimizer),
            compression=self._compression,
            gradient_predivide_factor=float(self.size) if sends_halves else 1.0,
        )
        return model, self._optimizer

    def accumulate(self, model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        passes = 1 if last else _NOT_YET
        if self._optimizer.backward_passes_per_step != passes:
            self._optimizer.set_backward_passes_per_step(passes)
        return nullcontext()

    @contextmanager
    def averaged(self, optimizer: Optimizer) -> Iterator[None]:
        self._optimizer.synchronize()  # before the scaler looks for overflow: all ranks see the same
        with self._optimizer.skip_synchronize():
            yield

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return hvd.allreduce_(tensor, op=hvd.Sum, name="sum") if self.size > 1 else tensor

    def broadcast(self, value: T) -> T:
        return hvd.broadcast_object(value, root_rank=0, name="broadcast") if self.size > 1 else value

    def gather(self, value: T) -> list[T]:
        if self.size == 1:
            return [value]
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = hvd.allgather(torch.tensor([len(own)]), name="gather_sizes")
        whole = hvd.allgather(own, name="gather")
        if self.rank != 0:
            return []
        return [pickle.loads(part.numpy().tobytes()) for part in whole.split(sizes.tolist())]  # noqa: S301 - pickled by our own ranks

    def vote(self, stop: bool) -> bool:
        if self.size == 1:
            return stop
        stopped = self._asked is not None and bool(hvd.synchronize(self._asked).item())
        # Only now: Horovod refuses a second operation with a name while the first one is running.
        self._asked = hvd.allreduce_async(torch.tensor([float(stop)]), op=hvd.Sum, name="vote")
        return stopped

    def barrier(self) -> None:
        hvd.barrier()

    def close(self) -> None:
        if self._asked is not None:
            hvd.synchronize(self._asked)
        hvd.shutdown()

    def operations(self) -> Operations:
        return HorovodOperations()


def _trained(model: nn.Module, optimizer: Optimizer) -> list[tuple[str, nn.Parameter]]:
    """The parameters that `optimizer` updates, with their names, which are equal on every rank."""
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) in stepped]
