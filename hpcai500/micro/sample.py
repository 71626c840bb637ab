"""Results of microbenchmarks: values of metrics, their spread, and whether the computed results were correct."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from hpcai500.spec.models import Frozen

Part = Literal["kernels", "workloads", "storage", "collectives"]
PARTS: tuple[Part, ...] = get_args(Part)


class Sample(Frozen):
    """One metric. `value` is the median over the repetitions, and the quartiles bound their middle half."""

    name: str
    """Name for people: `GEMM 8192, bf16`."""
    metric: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$", max_length=120)]
    """Name for programs, with the unit at its end: `gemm_8192_bf16_flops`."""
    unit: Literal["FLOPS", "B/s", "s", "1/s"]
    value: float
    lower_quartile: float
    upper_quartile: float
    num_repeats: int
    part: Part
    """The part of `hpcai500 micro` that measured it."""
    family: str = ""
    """Group of the metric: `gemm` or `copy` for kernels, the operation for collectives, the files for storage."""
    better: Literal["higher", "lower"]
    detail: str = ""
    """The shape, or the size and anything else that the value depends on."""
    precision: str = ""
    """`fp64`, `fp32`, `tf32`, `bf16` or `fp16`; empty if only bytes count."""
    flops: float = 0.0
    """FLOPs per call, MAC = 2; 0 if they do not limit it."""
    bytes: float = 0.0
    """Bytes per call; for a kernel, operands read and results written, each once."""
    size_bytes: int | None = None
    """Requested size of a collective; parts of equal length may make it a little larger."""
    correct: bool = True
    """Whether every checked result was correct; if not, `detail` has the wrong ones."""
    wrong_ranks: tuple[int, ...] = ()
    """Ranks of a collective that got a wrong result."""


class Skipped(Frozen):
    """A metric that was not measured, and why."""

    name: str
    reason: str
    family: str = ""
    """Group of the metric, as in `Sample`."""
    precision: str = ""
    metric: str = ""
    """Metric that is not measured; empty if there are several."""


class Shape(Frozen):
    """One of a workload's products and convolutions."""

    metric: str
    """Metric of its sample."""
    count: int
    """Number of calls per pass."""
    share: float
    """Share of the pass's FLOPs, over all calls."""


class Coverage(Frozen):
    """The share of a workload's forward and backward pass that the measured shapes cover."""

    workload: str
    problem: str
    precision: str
    num_samples: int
    """Samples per batch."""
    pass_flops: float
    """FLOPs of the whole pass, MAC = 2."""
    num_shapes: int
    """Number of different shapes in the whole pass."""
    share: float
    """Share of the pass's FLOPs in all `shapes` together."""
    shapes: tuple[Shape, ...]
    """Measured shapes, the largest share first."""
    together: str = ""
    """Metric of the sample for all shapes together."""


class MicroResults(Frozen):
    """Results of one set of microbenchmarks."""

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
    """`amount` per second. The quartiles swap, since the slowest call has the lowest rate."""
    found = spread(seconds)
    return Spread(amount / found.median, amount / found.upper_quartile, amount / found.lower_quartile)
