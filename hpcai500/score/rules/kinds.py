"""The only place that decides by who trained a run."""

from hpcai500.score.rules.evidence import Evidence
from hpcai500.score.rules.foreign_rules import Foreign
from hpcai500.score.rules.kind import Kind
from hpcai500.score.rules.trained_rules import Trained
from hpcai500.spec.foreign_run import ForeignRun


def own_rules(evidence: Evidence) -> Kind:
    run = evidence.spec
    return Foreign(evidence, run) if isinstance(run, ForeignRun) else Trained(evidence, run)
