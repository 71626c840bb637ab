"""torch.compile and CUDA graphs, as `execution.compile` asks for them."""

from typing import Literal, cast

import torch
from torch import nn

CUDA_GRAPHS = "reduce-overhead"


def compiled(wrapped: nn.Module, how: Literal[True, "reduce-overhead"]) -> nn.Module:
    """`wrapped`, compiled at its first call.

    It stands around DDP: torch then cuts the backward pass between DDP's buckets. Inside DDP it would be one piece,
    and the first gradient would be sent after the last one is computed.
    """
    if how == CUDA_GRAPHS:  # what a graph returns is gone when it runs again: gradients live outside its memory
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
    return cast(nn.Module, torch.compile(wrapped, mode=None if how is True else how))


def begin_pass(how: bool | Literal["reduce-overhead"]) -> None:
    """Say that nothing of the pass before is needed any more, which lets CUDA graphs use its memory again."""
    if how == CUDA_GRAPHS:
        torch.compiler.cudagraph_mark_step_begin()
