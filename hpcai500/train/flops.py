"""Counting the FLOPs that a model's convolutions and matrix products need, forward and backward."""

import copy
import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hpcai500.events.payloads import Convention, FlopsPerSample, SampleFlops
from hpcai500.score.record.valid_flops import CONVENTION
from hpcai500.train.structure import LayerFlops, layer_flops


class FlopCount(NamedTuple):
    """FLOPs to train one sample, over several batches."""

    mean: float
    standard_deviation: float
    """Standard deviation over the batches; 0 if shapes do not vary, or for one batch."""
    num_batches: int
    layers: dict[str, LayerFlops]
    """FLOPs of each layer's forward pass."""

    def event(self) -> FlopsPerSample:
        counted = SampleFlops(
            mean=self.mean, standard_deviation=self.standard_deviation, num_batches=self.num_batches
        )
        return FlopsPerSample(value=counted, metadata=Convention(convention=CONVENTION))


def count_flops(
    model: nn.Module, batches: Iterable[tuple[object, int]], loss: Callable[[nn.Module, object], torch.Tensor]
) -> FlopCount:
    """Count while each (batch, number of samples) passes once through a copy of `model`.

    The model, its gradients and the random generators do not change.
    """
    copied = without_synchronisation(copy.deepcopy(model))
    per_sample: list[float] = []
    forward = []
    with torch.random.fork_rng():
        for batch, num_samples in batches:
            with FlopCounterMode(display=False) as counter:
                value = loss(copied, batch)
                forward.append((counter.get_flop_counts(), num_samples))  # torch creates a new one at each call
                value.backward()
            copied.zero_grad(set_to_none=True)
            per_sample.append(counter.get_total_flops() / num_samples)
    spread = statistics.stdev(per_sample) if len(per_sample) > 1 else 0.0
    return FlopCount(statistics.fmean(per_sample), spread, len(per_sample), layer_flops(forward))


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` whose parameters and buffers have shapes but no memory (torch's device `meta`)."""
    copies: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        copies[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, copies)


def without_synchronisation(model: nn.Module) -> nn.Module:
    """`model` with BatchNorm2d for each SyncBatchNorm, since only one rank counts and cannot wait for others."""
    for name, child in model.named_children():
        if isinstance(child, nn.SyncBatchNorm):
            setattr(model, name, nn.BatchNorm2d(child.num_features, device=child.weight.device))
        else:
            without_synchronisation(child)
    return model
