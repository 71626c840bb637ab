"""A validation's report as JSON, with a published schema."""

from typing import Literal

import numpy as np

from hpcai500 import __version__
from hpcai500.spec.models import Frozen
from hpcai500.text import counted
from hpcai500.validate.files import Plan, Stage
from hpcai500.validate.judge.assessment import Assessment, Verdict, verdict_of
from hpcai500.validate.judge.bounds import centre_and_scale
from hpcai500.validate.judge.findings import SEVERITIES, Finding, Severity
from hpcai500.validate.judge.peers import column
from hpcai500.validate.judge.reading import Series, needed


class StageOutcome(Frozen):
    stage: Stage
    verdict: Verdict
    num_nodes: int
    """Nodes that had to answer."""
    num_answered: int


class NodeOutcome(Frozen):
    node: str
    verdict: Verdict
    num_findings: int


class MetricSummary(Frozen):
    """One metric over all subjects that have it. Figures are in `unit`, and only for numbers."""

    stage: Stage
    metric: str
    num_nodes: int
    """Nodes per subject: 1 for a node or device, 2 for a link, more for a collective."""
    unit: str
    better: str
    num_values: int
    median: float | None = None
    spread: float | None = None
    """Standard deviation estimated by the MAD, in `unit`."""
    worst: float | None = None
    worst_nodes: tuple[str, ...] = ()
    worst_device: str = ""
    best: float | None = None
    num_distinct: int | None = None
    """Number of different texts."""


class ReportDocument(Frozen):
    """What `hpcai500 validate --json` prints; docs/schemas/validation.schema.json is its schema."""

    schema_version: Literal[1] = 1
    hpcai500_version: str = __version__
    verdict: Verdict
    plan: Plan
    counts: dict[Severity, int]
    remarks: tuple[str, ...]
    findings: tuple[Finding, ...]
    stages: tuple[StageOutcome, ...]
    nodes: tuple[NodeOutcome, ...]
    metrics: tuple[MetricSummary, ...]


def report_document(assessment: Assessment) -> ReportDocument:
    return ReportDocument(
        verdict=assessment.verdict,
        plan=assessment.plan,
        counts=counts(assessment),
        remarks=assessment.remarks,
        findings=assessment.findings,
        stages=stages(assessment),
        nodes=nodes(assessment),
        metrics=tuple(summary(series) for series in assessment.series.values()),
    )


def counts(assessment: Assessment) -> dict[Severity, int]:
    return {severity: sum(finding.severity == severity for finding in assessment.findings) for severity in SEVERITIES}


def severities(assessment: Assessment) -> str:
    """`1 failure, 2 warnings, 0 notes`."""
    words = {"fail": "failure", "warn": "warning", "note": "note"}
    return ", ".join(counted(number, words[severity]) for severity, number in counts(assessment).items())


def stages(assessment: Assessment) -> tuple[StageOutcome, ...]:
    required = set(needed(assessment.plan))
    return tuple(
        StageOutcome(
            stage=stage,
            verdict=verdict_of(
                [finding for finding in assessment.findings if stage in (finding.stage, *finding.further_stages)]
            ),
            num_nodes=len(assessment.plan.nodes) if stage in required else 0,
            num_answered=len(assessment.answered.get(stage, ())),
        )
        for stage in assessment.plan.stages
    )


def nodes(assessment: Assessment) -> tuple[NodeOutcome, ...]:
    own: dict[str, list[Finding]] = {name: [] for name in assessment.plan.nodes}
    for finding in assessment.findings:
        for name in finding.nodes:
            own[name].append(finding)
    return tuple(
        NodeOutcome(node=name, verdict=verdict_of(found), num_findings=len(found)) for name, found in own.items()
    )


def summary(series: Series) -> MetricSummary:
    key = series.key
    base = MetricSummary(
        stage=key.stage,
        metric=key.metric,
        num_nodes=key.num_nodes,
        unit=series.unit,
        better=series.better,
        num_values=len(series.values),
    )
    if series.is_text:
        distinct = {value for values in series.values.values() for value in values}
        return base.model_copy(update={"num_distinct": len(distinct)})
    subjects, values = column(series)
    centre, scale = centre_and_scale(values)
    if series.better == "same":
        worst = int(np.argmax(np.abs(values - centre)))
    else:
        worst = int(np.argmax(values) if series.better == "lower" else np.argmin(values))
    best = np.min(values) if series.better == "lower" else np.max(values)
    return base.model_copy(
        update={
            "median": centre,
            "spread": scale,
            "worst": float(values[worst]),
            "worst_nodes": subjects[worst].nodes if key.num_nodes <= 2 else (),
            "worst_device": subjects[worst].device,
            "best": float(best),
        }
    )
