"""The one place that asks who trained a run."""

from hpcai500.score.evidence import Evidence
from hpcai500.score.foreign_rules import Foreign
from hpcai500.score.kind import Kind
from hpcai500.score.trained_rules import Trained
from hpcai500.spec.foreign_run import ForeignRun


def own_rules(evidence: Evidence) -> Kind:
    run = evidence.spec
    return Foreign(evidence, run) if isinstance(run, ForeignRun) else Trained(evidence, run)
