"""One metric of one subject that is off: what the comparisons find and findings are made of."""

from typing import Literal, NamedTuple

from hpcai500.validate.judge.findings import Kind
from hpcai500.validate.judge.reading import Series, Subject


class Deviation(NamedTuple):
    kind: Kind
    """`peers`, `links`, `baseline`, `expected`, `better`."""
    severity: Literal["fail", "warn", "note"]
    series: Series
    subject: Subject
    value: float | str
    reference: float | str
    """Of the peers, the baseline or the site's file."""
    size: float
    """Part of the reference by which the value is worse; what findings of one severity are sorted by."""
    remark: str = ""


def by_size(shortfall: float, relative: float) -> Literal["fail", "warn"]:
    return "fail" if shortfall > 2 * relative else "warn"
