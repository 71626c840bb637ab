"""Tracing one forward and backward pass of a workload: its products and convolutions, FLOPs and bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_ALLOCATES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"}
_OVERWRITES = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_"}
"""In-place operators that do not read their target."""


class TensorSpec(NamedTuple):
    """The shape and type of an operand, from which a similar one can be made."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_channels_last: bool


class Operation(NamedTuple):
    """A product or convolution. Equal ones are counted as one."""

    function: Any
    """The operator of torch."""
    arguments: tuple[Any, ...]
    """The arguments, with a `TensorSpec` in place of each tensor and tuples in place of lists."""

    @property
    def name(self) -> str:
        return str(self.function.__name__.split(".")[0])

    @property
    def operands(self) -> list[TensorSpec]:
        return [each for each in self.arguments if isinstance(each, TensorSpec)]


@dataclass
class OperationCount:
    count: int = 0
    """Number of calls in the pass."""
    flops: int = 0
    """FLOPs per call."""
    bytes: int = 0
    """Bytes per call."""


@dataclass
class Trace:
    operations: dict[Operation, OperationCount] = field(default_factory=dict)
    unfused_bytes: int = 0
    """Bytes read and written by every operator: the traffic if nothing stays in caches."""

    @property
    def flops(self) -> int:
        return sum(each.count * each.flops for each in self.operations.values())

    @property
    def fused_bytes(self) -> int:
        """Bytes read and written only by products and convolutions: the traffic if all else is fused into them."""
        return sum(each.count * each.bytes for each in self.operations.values())


class Tracer(TorchDispatchMode):
    """Records in `trace` every operator that is dispatched while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.__name__.split(".")[0]
        if func.is_view or name in _ALLOCATES:
            return result
        read = tree_leaves((args, kwargs))
        if name in _OVERWRITES:
            read = read[1:]
        num_bytes = sum(map(num_bytes_of, (*read, *tree_leaves(result))))
        self.trace.unfused_bytes += num_bytes
        if func._overloadpacket in flop_registry:
            operation = Operation(func, _specified(args))
            counted = self.trace.operations.setdefault(operation, OperationCount())
            counted.count += 1
            counted.flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
            counted.bytes = num_bytes
        return result


def trace(run: Callable[[], torch.Tensor]) -> Trace:
    """The trace of the forward pass in `run`, which returns a loss, and of its backward pass."""
    with Tracer() as tracer:
        run().backward()
    found: Trace = tracer.trace
    return found


def num_bytes_of(value: Any) -> int:
    """Bytes of a tensor, without repeated ones if it is expanded; 0 for anything else."""
    if not isinstance(value, torch.Tensor):
        return 0
    elements = 1
    for size, stride in zip(value.shape, value.stride(), strict=True):
        elements *= size if stride or size == 0 else 1
    return elements * value.element_size()


def _specified(arguments: Sequence[Any]) -> tuple[Any, ...]:
    def specify(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            last = (
                value.dim() == 4
                and value.is_contiguous(memory_format=torch.channels_last)
                and not value.is_contiguous()
            )
            return TensorSpec(tuple(value.shape), value.dtype, last)
        return tuple(value) if isinstance(value, list) else value

    return tuple(specify(value) for value in arguments)


def with_tensors(arguments: Sequence[Any], make: Callable[[TensorSpec], torch.Tensor]) -> list[Any]:
    """The `arguments` of an `Operation`, with a tensor in place of each `TensorSpec`."""
    return [make(value) if isinstance(value, TensorSpec) else value for value in arguments]


def by_flops(found: Trace) -> Iterator[tuple[Operation, OperationCount]]:
    """The operations of a pass, those with the most FLOPs first."""
    yield from sorted(found.operations.items(), key=lambda item: -item[1].count * item[1].flops)
