"""The roofline model (Williams, Waterman and Patterson 2009): a device's limits and what bounds a workload."""

from typing import Literal

from pydantic import Field

from hpcai500.spec.models import Frozen

Bound = Literal["compute", "memory", "memory unless fused", "neither"]

ENOUGH = 0.5
"""A workload below this share of its lowest roof is bound by neither memory nor arithmetic."""


class Ceilings(Frozen):
    """The speeds that one device reached on single kernels."""

    host: str
    accelerator: str
    device: str
    source: str
    """`measured now`, or a file."""
    gemm: dict[str, float] = Field(default_factory=dict)
    """FLOPS of the best matrix product, by precision."""
    convolution: dict[str, float] = Field(default_factory=dict)
    memory_bytes_per_sec: float = Field(gt=0)
    """Bandwidth of a copy, bytes read plus bytes written."""

    def peak(self, precision: str) -> float:
        """FLOPS of the faster kernel in the precision that torch uses: TF32 for fp32 convolutions on a GPU."""
        names = (precision, "tf32") if precision == "fp32" else (precision,)
        return max(table.get(name, 0.0) for table in (self.gemm, self.convolution) for name in names)


class WorkloadPoint(Frozen):
    """One workload on one device. FLOPs and bytes are per sample, forward and backward."""

    name: str
    precision: str
    source: str
    """The origin of the FLOPS: steps measured now, or results."""
    accelerator: str = ""
    """Accelerator of the results; empty if steps were measured on the ceilings' own device."""
    num_ranks: int = 1
    """Number of ranks of each result."""
    flops: float = Field(gt=0)
    """Achieved FLOPS of one device, a GPU or all CPUs of a node, while it trains."""
    flops_per_sample: float = Field(gt=0)
    unfused_bytes: float = Field(gt=0)
    """Bytes of operands and results of every operator: the most that a pass moves."""
    fused_bytes: float = Field(gt=0)
    """Bytes of only products and convolutions: the least that a pass moves, unless caches keep tensors."""

    @property
    def low_intensity(self) -> float:
        """FLOPs per byte of unfused traffic."""
        return self.flops_per_sample / self.unfused_bytes

    @property
    def high_intensity(self) -> float:
        """FLOPs per byte of fused traffic."""
        return self.flops_per_sample / self.fused_bytes


class RooflinePoint(Frozen):
    """A point with its roof and what bounds it."""

    point: WorkloadPoint
    peak_flops: float
    ridge: float
    """FLOPs per byte above which arithmetic is the bound."""
    low_roof_flops: float
    """Attainable FLOPS with unfused traffic."""
    high_roof_flops: float
    """Attainable FLOPS with fused traffic."""
    bound: Bound
    sentence: str


class Roofline(Frozen):
    """The document that `hpcai500 roofline --json` prints."""

    schema_version: Literal[1] = 1
    ceilings: Ceilings
    points: tuple[RooflinePoint, ...]


def roof(intensity: float, peak_flops: float, bytes_per_sec: float) -> float:
    """Attainable FLOPS at `intensity` FLOPs per byte: `min(peak, intensity * bandwidth)`."""
    return min(peak_flops, intensity * bytes_per_sec)


def roofline_point(point: WorkloadPoint, ceilings: Ceilings) -> RooflinePoint:
    """`point` with its roof, what bounds it, and by how much."""
    peak, bandwidth = ceilings.peak(point.precision), ceilings.memory_bytes_per_sec
    ridge = peak / bandwidth
    low, high = (roof(intensity, peak, bandwidth) for intensity in (point.low_intensity, point.high_intensity))
    bound = _bound(point, low, ridge)
    return RooflinePoint(
        point=point,
        peak_flops=peak,
        ridge=ridge,
        low_roof_flops=low,
        high_roof_flops=high,
        bound=bound,
        sentence=_sentence(point, bound, low, high, peak, ridge),
    )


def _bound(point: WorkloadPoint, low: float, ridge: float) -> Bound:
    if point.flops < ENOUGH * low:
        return "neither"
    if point.low_intensity >= ridge:
        return "compute"
    return "memory" if point.high_intensity < ridge else "memory unless fused"


def _sentence(point: WorkloadPoint, bound: Bound, low: float, high: float, peak: float, ridge: float) -> str:
    of_peak = f"{point.flops / peak:.0%} of the {point.precision} peak"
    if bound == "neither":
        return (
            f"neither memory nor arithmetic bounds it: it reaches {point.flops / low:.0%} of its lowest roof, "
            f"{of_peak}; look at overhead (small kernels, launches), input and communication"
        )
    if bound == "compute":
        return (
            f"arithmetic bounds it: its intensity is {point.low_intensity / ridge:.1f} times the ridge's or more, "
            f"and it reaches {of_peak}"
        )
    if bound == "memory":
        return (
            f"memory bounds it, by a factor of {ridge / point.high_intensity:.1f} even if all is fused: "
            f"it reaches {point.flops / high:.0%} of that roof, {of_peak}"
        )
    return (
        f"memory bounds it by a factor of {ridge / point.low_intensity:.1f} unless operators are fused, arithmetic "
        f"then: it reaches {point.flops / low:.0%} of the unfused roof, {of_peak}"
    )
