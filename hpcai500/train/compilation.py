"""torch.compile and CUDA graphs, as `execution.compile` asks for them."""

from typing import Literal, cast

import torch
from torch import nn

CUDA_GRAPHS = "reduce-overhead"

How = bool | Literal["reduce-overhead"]
"""The value of `execution.compile`."""


def compiled(wrapped: nn.Module, how: How) -> nn.Module:
    """`wrapped`, compiled at its first call.

    It stands around DDP: torch then cuts the backward pass between DDP's buckets. Inside DDP it would be one piece,
    and the first gradient would be sent after the last one is computed.
    """
    if how == CUDA_GRAPHS:  # what a graph returns is gone when it runs again: gradients live outside its memory
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
    return cast(nn.Module, torch.compile(wrapped, mode=how if isinstance(how, str) else None))


def begin_pass(how: How) -> None:
    """Say that nothing of the pass before is needed any more, which lets CUDA graphs use its memory again."""
    if how == CUDA_GRAPHS:
        torch.compiler.cudagraph_mark_step_begin()


def clear_gradients(optimizer: torch.optim.Optimizer, how: How) -> None:
    """Before the next step; in place where gradients must stay where they are."""
    if how != CUDA_GRAPHS:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        torch._foreach_zero_([parameter.grad for parameter in group["params"] if parameter.grad is not None])
