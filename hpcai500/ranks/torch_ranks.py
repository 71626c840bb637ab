"""The ranks of a run, and their collective operations."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore, Store
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from hpcai500.errors import HpcAi500Error, InputError, LibraryError, MachineError, RankError
from hpcai500.launch.launcher import RankEnvironment
from hpcai500.launch.registry import find_launcher
from hpcai500.ranks.operations import Operations, TorchOperations
from hpcai500.text import counted

T = TypeVar("T")

_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_KEEP_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}
"""DDP's option, under the name that this version of torch uses."""


class Ranks(Protocol):
    """The interface of a communication library for the loop and the workloads."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    def wrap(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Model and optimizer, set up to average gradients across ranks and broadcast from rank 0."""

    def accumulate(self, model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """The context of one micro-batch's forward and backward pass. Only the `last` of a step communicates."""

    def averaged(self, optimizer: Optimizer) -> AbstractContextManager[None]:
        """The context of an optimiser's step, in which each gradient is the mean over the ranks."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, in place."""

    def broadcast(self, value: T) -> T:
        """Rank 0's picklable `value`, on every rank."""

    def gather(self, value: T) -> list[T]:
        """Every rank's picklable `value` in rank order, on rank 0; empty elsewhere."""

    def vote(self, stop: bool) -> bool:
        """Vote whether to stop. Return whether any rank voted to stop in the previous call.

        The answer is one call late and equal on all ranks, so that no step waits for it.
        """

    def barrier(self) -> None: ...

    def close(self) -> None: ...

    def operations(self) -> Operations:
        """The collectives of the library that brought the ranks together."""


class TorchRanks:
    """torch.distributed with DDP: NCCL between GPUs, Gloo between CPUs."""

    def __init__(
        self,
        own: RankEnvironment,
        device: str,
        rendezvous: Callable[[], Store] | None = None,
        compression: str = "none",
    ) -> None:
        """Join the other ranks; `rendezvous` returns their shared store if torchrun has none.

        `compression` of gradients is `none` or `fp16`.
        """
        self.rank, self.size = own.rank, own.size
        self.local_rank, self.local_size = own.local_rank, own.local_size
        self.device = choose_device(device, torch.cuda.device_count(), self.local_rank, self.local_size)
        self._asked: Callable[[], bool] | None = None
        self._compression = compression
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        device_id = None
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            device_id = self.device
        try:
            if rendezvous or self.size == 1:
                store = rendezvous() if rendezvous else HashStore()
                dist.init_process_group(
                    backend, store=store, rank=self.rank, world_size=self.size, device_id=device_id
                )
            else:
                dist.init_process_group(backend, init_method="env://", device_id=device_id)
        except (RuntimeError, ValueError) as error:
            raise LibraryError(f"{backend}: {first_line(error)}", "see docs/clusters.md") from error

    def wrap(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        if self.size == 1:
            return model, optimizer
        # Buffers are averaged before each evaluation instead of broadcast at each step.
        wrapped = DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **_KEEP_BUFFERS,
        )
        if self._compression == "fp16":
            wrapped.register_comm_hook(None, fp16_compress_hook)
        return wrapped, optimizer

    @contextmanager
    def _no_sync(self, model: nn.Module) -> Iterator[None]:
        with model.no_sync():  # type: ignore[operator]
            yield

    def accumulate(self, model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last or self.size == 1 else self._no_sync(model)

    def averaged(self, optimizer: Optimizer) -> AbstractContextManager[None]:
        return nullcontext()  # the backward pass has averaged them

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: T) -> T:
        if self.size == 1:
            return value
        box = [value if self.rank == 0 else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        if self.size == 1:
            return [value]
        box: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, box, dst=0)
        return box or []

    def vote(self, stop: bool) -> bool:
        if self.size == 1:
            return stop
        earlier, self._asked = self._asked, self._ask(stop)
        return earlier is not None and earlier()

    def _ask(self, stop: bool) -> Callable[[], bool]:
        """Start counting votes. Return the function that reads the result."""
        votes = torch.full((1,), float(stop), device=self.device)
        if self.device.type == "cpu":
            work = dist.all_reduce(votes, dist.ReduceOp.MAX, async_op=True)
            return lambda: bool(work.wait() and votes.item())
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        answer = torch.empty(1, pin_memory=True)
        answer.copy_(votes, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def read() -> bool:
            copied.synchronize()
            return bool(answer.item())

        return read

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        dist.destroy_process_group()

    def operations(self) -> Operations:
        return TorchOperations(self.size)


def require_size(expected: int, found: int, launcher: str, library: str) -> None:
    """Refuse a world of another size than the run's. Otherwise N ranks could each run as if there were only one."""
    if found != expected:
        raise RankError(
            f"the run asks for {expected} ranks, but this process sees a world of {found} through {library}",
            find_launcher(launcher).wrong_size_remedy(library),
        )


def choose_device(wanted: str, num_gpus: int, local_rank: int, local_size: int) -> torch.device:
    """The device of one rank; `wanted` is `auto`, `cpu` or `cuda`.

    Raises:
        MachineError: if a GPU is wanted and there is none.
        InputError: if ranks would have to share a GPU, which NCCL cannot do.
    """
    if wanted == "cpu" or (wanted == "auto" and num_gpus == 0):
        return torch.device("cpu")
    if num_gpus == 0:
        raise MachineError("execution.device=cuda, but torch finds no GPU", "use execution.device=auto")
    if local_size > num_gpus:
        raise InputError(
            f"{local_size} ranks on a node with {counted(num_gpus, 'GPU')}: NCCL takes one rank per GPU",
            f"use --procs-per-node {num_gpus}, or --set execution.device=cpu",
        )
    return torch.device("cuda", local_rank)


def read_once(ranks: Ranks, read: Callable[[], T]) -> T:
    """The result of `read` on rank 0, broadcast to every rank; an error is raised on every rank."""
    found: T | HpcAi500Error | None = None
    if ranks.rank == 0:
        try:
            found = read()
        except HpcAi500Error as error:
            found = error
    found = ranks.broadcast(found)
    if isinstance(found, HpcAi500Error):
        raise found
    return found  # type: ignore[return-value]


def average_buffers(ranks: Ranks, model: nn.Module) -> None:
    """Give every rank the mean of all ranks' floating-point buffers (running batch statistics)."""
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    if ranks.size == 1 or not buffers:
        return
    flat = ranks.sum(torch.cat([b.reshape(-1) for b in buffers])) / ranks.size
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
