"""torch.compile and CUDA graphs, as configured by `execution.compile`."""

from typing import Literal, cast

import torch
from torch import nn

CUDA_GRAPHS = "reduce-overhead"

How = bool | Literal["reduce-overhead"]
"""The value of `execution.compile`."""


def compiled(wrapped: nn.Module, how: How) -> nn.Module:
    """`wrapped`, compiled at its first call.

    It is around DDP, so that torch splits the backward pass between DDP's buckets. Inside DDP it would be one piece,
    and the first gradient would be sent only after the last one is computed.
    """
    if (
        how == CUDA_GRAPHS
    ):  # a graph overwrites its results when it runs again, so gradients are kept outside its memory
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
    return cast(nn.Module, torch.compile(wrapped, mode=how if isinstance(how, str) else None))


def begin_pass(how: How) -> None:
    """Mark that the results of the previous pass are no longer needed, so that CUDA graphs can reuse its memory."""
    if how == CUDA_GRAPHS:
        torch.compiler.cudagraph_mark_step_begin()


def clear_gradients(optimizer: torch.optim.Optimizer, how: How) -> None:
    """Clear the gradients before the next step; in place under CUDA graphs, which need fixed addresses."""
    if how != CUDA_GRAPHS:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        torch._foreach_zero_([parameter.grad for parameter in group["params"] if parameter.grad is not None])
