"""What a ranking may be ordered by: each metric once, for the command line, the order and every format."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal, NamedTuple

By = Literal["vflops", "vflops_per_watt", "time_to_quality", "flops", "quality"]


class Metric(NamedTuple):
    name: By
    """The name that `--by` takes."""
    title: str
    unit: str
    """Empty if the title holds it."""
    meaning: str
    """How it is computed, for a legend."""
    summary_of: Callable[[Any], Any]
    """The summary of the figure over an entry's runs."""
    is_better_when_larger: bool
    missing: str
    """Why an entry that lacks the figure has no rank."""


METRICS: dict[By, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="vflops",
            title="VFLOPS",
            unit="",
            meaning="FLOPS x (quality / target) ** n, mean",
            summary_of=attrgetter("vflops"),
            is_better_when_larger=True,
            missing="no VFLOPS",
        ),
        Metric(
            name="vflops_per_watt",
            title="VFLOPS per watt",
            unit="",
            meaning="Mean of VFLOPS over power; (4 of 5): only 4 of 5 runs measured energy",
            summary_of=attrgetter("vflops_per_watt"),
            is_better_when_larger=True,
            missing="energy was not measured in every run",
        ),
        Metric(
            name="time_to_quality",
            title="time to quality",
            unit="s",
            meaning="Mean; (4 of 5): only 4 of 5 runs reached the target",
            summary_of=attrgetter("time_to_quality_sec"),
            is_better_when_larger=False,
            missing="not every run reached the target",
        ),
        Metric(
            name="flops",
            title="FLOPS",
            unit="",
            meaning="FLOPs of all trained samples per second of the whole time, mean",
            summary_of=attrgetter("flops"),
            is_better_when_larger=True,
            missing="no FLOPS",
        ),
        Metric(
            name="quality",
            title="final quality",
            unit="",
            meaning="Quality at the last evaluation, mean",
            summary_of=attrgetter("quality"),
            is_better_when_larger=True,
            missing="no quality",
        ),
    )
}
