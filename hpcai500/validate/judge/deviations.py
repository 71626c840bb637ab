"""One metric of one subject that is off: the result of a comparison, of which findings are made."""

from typing import Literal, NamedTuple

from hpcai500.validate.judge.findings import Kind, Severity
from hpcai500.validate.judge.reading import Series, Subject


class Deviation(NamedTuple):
    kind: Kind
    """One of PEERS, LINKS, BASELINE, EXPECTED, BETTER."""
    severity: Severity
    series: Series
    subject: Subject
    value: float | str
    reference: float | str
    """Value of the peers, the baseline or the site's file."""
    size: float
    """Part of the reference by which the value is worse. Findings of one severity are sorted by it."""
    remark: str = ""


def by_size(shortfall: float, relative: float) -> Literal["fail", "warn"]:
    return "fail" if shortfall > 2 * relative else "warn"
