"""Comparison of two models by the shapes of their parameters and the FLOPs of their layers."""

import math
from collections.abc import Iterator

from hpcai500.events.payloads import Structure
from hpcai500.spec.reference import ModelReference

SAME = 1e-6
"""Relative tolerance of FLOPs for the same code."""
OTHER_BACKWARD = 0.01
"""Relative tolerance of training FLOPs for another implementation, which may also compute its input's gradient."""
_VARIES = 0.5
"""Relative tolerance for a layer whose FLOPs depend on the data."""


def model_differences(
    structure: Structure | ModelReference | None, reference: ModelReference, whose: str = "the reference's"
) -> Iterator[str]:
    """Differences between a logged model's structure and `reference`, which messages call `whose`."""
    if structure is None:
        yield "events.log: the model's structure is missing"
        return
    if structure.parameters_digest != reference.parameters_digest:
        yield (
            f"names and shapes of the model's {structure.num_parameters:,} parameters differ from "
            f"{whose} {reference.num_parameters:,}"
        )
    elif structure.num_parameters != reference.num_parameters:
        yield f"{structure.num_parameters:,} parameters are logged, not {reference.num_parameters:,}"
    here, there, varying = structure.layer_flops, reference.layer_flops, reference.varying_layers
    wrong = [
        name
        for name in sorted({*here, *there})
        if not math.isclose(here.get(name, 0.0), there.get(name, 0.0), rel_tol=_VARIES if name in varying else SAME)
    ]
    if wrong:
        first = wrong[0]
        yield (
            f"the FLOPs of {len(wrong)} layers differ from {whose}, first {first!r}: "
            f"{here.get(first, 0):g} per sample, not {there.get(first, 0):g}"
        )
