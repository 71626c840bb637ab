"""What a problem's `metric` measures: the names that this version knows, and what each of them counts."""

from typing import Literal

MetricKind = Literal["right answers", "precision over recall"]

METRICS: dict[str, MetricKind] = {
    "accuracy": "right answers",
    "top-1 accuracy": "right answers",
    "top-5 accuracy": "right answers",
    "mAP@0.5": "precision over recall",
}
"""A metric of right answers is their number over that of the evaluation samples, so that few values are possible.

The kind is no setting of a problem: it follows from the name, which Layer 9 fixes and every digest holds.
"""


def kind_of(metric: str) -> MetricKind | None:
    """None for a name that this version does not know."""
    return METRICS.get(metric)
