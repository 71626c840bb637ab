"""What a microbenchmark measured: the value of one metric, how it spread, and whether the result was right."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from hpcai500.spec.models import Frozen

Part = Literal["kernels", "workloads", "storage", "collectives"]
PARTS: tuple[Part, ...] = get_args(Part)


class Sample(Frozen):
    """One metric. `value` is the median over the repetitions; the quartiles bound their middle half."""

    name: str
    """For a reader: `GEMM 8192, bf16`."""
    metric: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$", max_length=120)]
    """For machines, the unit at its end: `gemm_8192_bf16_flops`."""
    unit: Literal["FLOPS", "B/s", "s", "1/s"]
    value: float
    lower_quartile: float
    upper_quartile: float
    num_repeats: int
    part: Part
    """The part of `hpcai500 micro` that measured it."""
    family: str = ""
    """What it is one of: `gemm` or `copy` of kernels, the operation of a collective, whose files storage read."""
    better: Literal["higher", "lower"]
    detail: str = ""
    """The shape, or the size and what else the value depends on."""
    precision: str = ""
    """`fp64`, `fp32`, `tf32`, `bf16` or `fp16`; nothing where bytes alone count."""
    flops: float = 0.0
    """FLOPs of one call, MAC = 2; 0 where they are not what limits it."""
    bytes: float = 0.0
    """Bytes of one call: of a kernel, its operands read and its results written, each once."""
    size_bytes: int | None = None
    """Size that was asked for, of a collective; parts of equal length may make it a little larger."""
    correct: bool = True
    """Every result that was looked at was right; else `detail` says which were not."""
    wrong_ranks: tuple[int, ...] = ()
    """Ranks of a collective that got a wrong result."""


class Skipped(Frozen):
    """What this machine cannot be measured on, and why."""

    name: str
    reason: str
    family: str = ""
    """As in the sample that it would have been."""
    precision: str = ""
    metric: str = ""
    """The one that is not measured; empty if there are several."""


class Shape(Frozen):
    """One of a workload's products and convolutions."""

    metric: str
    """Of its sample."""
    count: int
    """Times in a pass."""
    share: float
    """Of the pass's FLOPs, all times together."""


class Coverage(Frozen):
    """How much of a workload's forward and backward pass the shapes make up that were measured."""

    workload: str
    problem: str
    precision: str
    num_samples: int
    """Of the batch."""
    pass_flops: float
    """Of the whole pass, MAC = 2."""
    num_shapes: int
    """In the whole pass, equal ones once."""
    share: float
    """Of the pass's FLOPs: that of `shapes` together."""
    shapes: tuple[Shape, ...]
    """Those measured, the largest share first."""
    together: str = ""
    """Metric of the sample of all shapes together."""


class MicroResults(Frozen):
    """What one set of microbenchmarks found."""

    samples: tuple[Sample, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    coverages: tuple[Coverage, ...] = ()

    def __add__(self, other: "MicroResults") -> "MicroResults":
        return MicroResults(
            samples=self.samples + other.samples,
            skipped=self.skipped + other.skipped,
            coverages=self.coverages + other.coverages,
        )

    @property
    def correct(self) -> bool:
        return all(sample.correct for sample in self.samples)


class Spread(NamedTuple):
    median: float
    lower_quartile: float
    upper_quartile: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, interpolated linearly between the two nearest values (numpy's default)."""
    lower, median, upper = (float(q) for q in np.quantile(np.asarray(values, dtype=np.float64), (0.25, 0.5, 0.75)))
    return Spread(median, lower, upper)


def rate(amount: float, seconds: Sequence[float]) -> Spread:
    """`amount` a second; the quartiles change places, since the slowest call has the lowest rate."""
    found = spread(seconds)
    return Spread(amount / found.median, amount / found.upper_quartile, amount / found.lower_quartile)
