"""The metrics of problems that this version knows, and what each of them counts."""

from typing import Literal

MetricKind = Literal["right answers", "precision over recall"]

METRICS: dict[str, MetricKind] = {
    "accuracy": "right answers",
    "top-1 accuracy": "right answers",
    "top-5 accuracy": "right answers",
    "mAP@0.5": "precision over recall",
}
"""A metric of right answers is their number divided by the number of evaluation samples: few values are possible.

The kind is not a setting of a problem. It follows from the name, which Layer 9 fixes and every digest covers.
"""


def kind_of(metric: str) -> MetricKind | None:
    """The kind of a metric; None if this version does not know its name."""
    return METRICS.get(metric)
