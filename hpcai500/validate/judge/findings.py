"""What the verdict says about a node, a link or the partition."""

from typing import Literal

from hpcai500.spec.models import Frozen
from hpcai500.validate.files import Stage

Severity = Literal["fail", "warn", "note"]
SEVERITIES: tuple[Severity, ...] = ("fail", "warn", "note")
Kind = Literal[
    "unreachable", "timeout", "no_answer", "wrong_result", "unhealthy", "failed", "missing", "differs", "split",
    "peers", "links", "baseline", "expected", "spread", "better",
]  # fmt: skip
KINDS: tuple[Kind, ...] = (
    "unreachable", "timeout", "no_answer", "wrong_result", "unhealthy", "failed", "missing", "differs", "split",
    "links", "peers", "expected", "baseline", "spread", "better",
)  # fmt: skip
"""In the order in which findings of one severity stand: what explains others comes first."""


class Finding(Frozen):
    """One thing to do something about. Figures are those of the worst metric, in `unit`."""

    severity: Severity
    kind: Kind
    stage: Stage
    further_stages: tuple[Stage, ...] = ()
    """Where the same is missing: of a node that did not answer."""
    nodes: tuple[str, ...]
    """Whom it concerns; two for a link; empty: the whole validation."""
    device: str = ""
    metric: str = ""
    unit: str = ""
    value: float | str | None = None
    reference: float | str | None = None
    """Of the peers, the baseline or the site's file."""
    message: str
    remedy: str
    details: tuple[str, ...] = ()
    """One line for each further metric that says the same."""
