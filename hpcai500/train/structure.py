"""The structure of a model: its parameters' names and shapes, and the FLOPs of each of its layers."""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from hpcai500.events.payloads import Structure
from hpcai500.files import digest

OUTSIDE = "outside"
"""The layer name for FLOPs of the loss outside of the model's modules."""


class LayerFlops(NamedTuple):
    """FLOPs of one layer's forward pass for one sample, over the counted batches."""

    mean: float
    varies: bool
    """Whether the FLOPs depend on the contents of the batch, as in the heads of a detector."""


def structure_of(model: nn.Module, layers: Mapping[str, LayerFlops]) -> Structure:
    """The model's structure, whose digest covers only what does not depend on the batch.

    `layer_parameters` keeps the order in which the model registers its layers.
    """
    parameters = [[name, list(parameter.shape)] for name, parameter in model.named_parameters()]
    layer_parameters: dict[str, int] = defaultdict(int)
    for name, parameter in model.named_parameters():
        layer_parameters[name.rpartition(".")[0]] += parameter.numel()
    fixed = {name: layer.mean for name, layer in sorted(layers.items()) if not layer.varies}
    return Structure(
        digest=digest({"parameters": parameters, "layer_flops": fixed}),
        parameters_digest=digest(parameters),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_tensors=len(parameters),
        layer_parameters=dict(layer_parameters),
        layer_flops={name: layer.mean for name, layer in sorted(layers.items())},
        varying_layers=tuple(sorted(name for name, layer in layers.items() if layer.varies)),
    )


def layer_flops(batches: Sequence[tuple[Mapping[str, Mapping[Any, int]], int]]) -> dict[str, LayerFlops]:
    """FLOPs per layer and sample, from torch's counts for each (batch, number of samples).

    The count of a module includes its children, so they are subtracted to get the module's own FLOPs.
    """
    rows: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(batches))
    for number, (counts, num_samples) in enumerate(batches):
        for name, flops in own_flops(counts).items():
            rows[name][number] = flops / num_samples
    return {name: LayerFlops(sum(row) / len(row), len(set(row)) > 1) for name, row in rows.items() if any(row)}


def _caller(name: str, called: Container[str]) -> str:
    """The nearest module above `name` that was called; lists of modules are not called."""
    parent = name.rpartition(".")[0]
    while parent and parent not in called:
        parent = parent.rpartition(".")[0]
    return parent or "Global"


def own_flops(counts: Mapping[str, Mapping[Any, int]]) -> dict[str, int]:
    """Each module's own FLOPs, without its children's, by its name in `named_modules`."""
    totals = {name: sum(by_operator.values()) for name, by_operator in counts.items()}
    own = dict(totals)
    for name, total in totals.items():
        if name != "Global":
            own[_caller(name, totals)] -= total
    names = {name: OUTSIDE if name == "Global" else name.partition(".")[2] for name in own}
    return {names[name]: flops for name, flops in own.items() if flops > 0}
