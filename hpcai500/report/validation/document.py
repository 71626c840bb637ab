"""A report for machines: JSON of a published schema."""

from typing import Literal

import numpy as np

from hpcai500 import __version__
from hpcai500.spec.models import Frozen
from hpcai500.text import counted
from hpcai500.validate.files import Plan, Stage
from hpcai500.validate.judge.bounds import centre_and_scale
from hpcai500.validate.judge.findings import SEVERITIES, Finding, Severity
from hpcai500.validate.judge.peers import column
from hpcai500.validate.judge.reading import Series, needed
from hpcai500.validate.judge.verdict import Report, Verdict, verdict_of


class StageOutcome(Frozen):
    stage: Stage
    verdict: Verdict
    num_nodes: int
    """That had to answer."""
    num_answered: int


class NodeOutcome(Frozen):
    node: str
    verdict: Verdict
    num_findings: int


class MetricSummary(Frozen):
    """One metric over all subjects that have it; figures are given for numbers only, in `unit`."""

    stage: Stage
    metric: str
    num_nodes: int
    """Nodes of one subject: 1 for a node or device, 2 for a link, more for a collective."""
    unit: str
    better: str
    num_values: int
    median: float | None = None
    spread: float | None = None
    """Standard deviation that the MAD stands for, in `unit`."""
    worst: float | None = None
    worst_nodes: tuple[str, ...] = ()
    worst_device: str = ""
    best: float | None = None
    num_distinct: int | None = None
    """How many texts differ."""


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


def report_document(report: Report) -> ReportDocument:
    return ReportDocument(
        verdict=report.verdict,
        plan=report.plan,
        counts=counts(report),
        remarks=report.remarks,
        findings=report.findings,
        stages=stages(report),
        nodes=nodes(report),
        metrics=tuple(summary(series) for series in report.series.values()),
    )


def counts(report: Report) -> dict[Severity, int]:
    return {severity: sum(finding.severity == severity for finding in report.findings) for severity in SEVERITIES}


def severities(report: Report) -> str:
    """`1 failure, 2 warnings, 0 notes`."""
    words = {"fail": "failure", "warn": "warning", "note": "note"}
    return ", ".join(counted(number, words[severity]) for severity, number in counts(report).items())


def stages(report: Report) -> tuple[StageOutcome, ...]:
    must = set(needed(report.plan))
    return tuple(
        StageOutcome(
            stage=stage,
            verdict=verdict_of(
                [finding for finding in report.findings if stage in (finding.stage, *finding.further_stages)]
            ),
            num_nodes=len(report.plan.nodes) if stage in must else 0,
            num_answered=len(report.answered.get(stage, ())),
        )
        for stage in report.plan.stages
    )


def nodes(report: Report) -> tuple[NodeOutcome, ...]:
    own: dict[str, list[Finding]] = {name: [] for name in report.plan.nodes}
    for finding in report.findings:
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
