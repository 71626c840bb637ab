"""A validation stored as the reference of later ones."""

from collections import defaultdict
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hpcai500.errors import InputError, ShortfallError
from hpcai500.files import read_json, write_json
from hpcai500.spec.models import Frozen, parse
from hpcai500.validate.files import Plan, Stage
from hpcai500.validate.judge.assessment import Assessment
from hpcai500.validate.judge.bounds import PeerRule, centre_and_scale, factor, relative_bound
from hpcai500.validate.judge.deviations import Deviation, by_size
from hpcai500.validate.judge.findings import Finding, Kind
from hpcai500.validate.judge.peers import Excuse, Lack, column, is_excused, missing_finding
from hpcai500.validate.judge.reading import Key, Series, Subject

_SAME = 1e-6
"""Relative tolerance within which a value that must be equal is unchanged."""


class BaselineValue(Frozen):
    """Value of one node, device, link or set of nodes."""

    nodes: tuple[str, ...]
    device: str = ""
    median: float | str
    """Median over repeats of the measurement; for texts, the last one."""
    spread: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the repeats, estimated by their MAD."""
    repeats: Annotated[int, Field(ge=1)] = 1


class BaselineMetric(Frozen):
    stage: Stage
    metric: str
    num_nodes: int
    unit: str
    better: Literal["higher", "lower", "same"]
    median: float | None
    """Median over `values`; None for texts."""
    spread: float | None
    values: Annotated[tuple[BaselineValue, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        is_text = self.median is None
        if (self.spread is None) != is_text or any(isinstance(one.median, str) != is_text for one in self.values):
            raise ValueError(f"{self.metric}: both figures and texts in one metric")
        return self


class Baseline(Frozen):
    """Content of the file of `--save-baseline`."""

    schema_version: Literal[1] = 1
    system: str
    partition: str
    date: str
    """Start of the validation: UTC, ISO 8601."""
    hpcai500_version: str
    level: Literal[1, 2, 3]
    left_out: tuple[str, ...]
    """Nodes that failed in this validation."""
    metrics: tuple[BaselineMetric, ...]


def save_baseline(assessment: Assessment, path: Path) -> tuple[str, ...]:
    """Store the figures in `path`, without those of failed nodes; return the failed nodes.

    Raises:
        ShortfallError: if no node is left.
    """
    plan = assessment.plan
    failed = {name for finding in assessment.findings if finding.severity == "fail" for name in finding.nodes}
    left_out = tuple(name for name in plan.nodes if name in failed)
    if len(left_out) == len(plan.nodes):
        raise ShortfallError(
            f"{path}: no node passed, so there is nothing to store",
            "fix what the report names; if --baseline or --expected is outdated, validate without it",
        )
    metrics = [_metric(series, failed) for series in assessment.series.values()]
    baseline = Baseline(
        system=plan.system,
        partition=plan.partition,
        date=plan.started,
        hpcai500_version=plan.version,
        level=plan.level,
        left_out=left_out,
        metrics=tuple(metric for metric in metrics if metric.values),
    )
    write_json(path, baseline.model_dump(mode="json"))
    return left_out


def _metric(series: Series, failed: set[str]) -> BaselineMetric:
    kept = [
        _value(subject, values) for subject, values in series.values.items() if not failed.intersection(subject.nodes)
    ]
    medians = np.asarray([value.median for value in kept if not isinstance(value.median, str)], float)
    centre, scale = centre_and_scale(medians) if len(medians) else (None, None)
    return BaselineMetric(
        stage=series.key.stage,
        metric=series.key.metric,
        num_nodes=series.key.num_nodes,
        unit=series.unit,
        better=series.better,
        median=centre,
        spread=scale,
        values=tuple(kept),
    )


def _value(subject: Subject, values: list[float | str]) -> BaselineValue:
    if isinstance(values[-1], str):
        return BaselineValue(nodes=subject.nodes, device=subject.device, median=values[-1], repeats=len(values))
    centre, scale = centre_and_scale(np.asarray(values, float))
    return BaselineValue(nodes=subject.nodes, device=subject.device, median=centre, spread=scale, repeats=len(values))


def parse_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        InputError: if the file is not a baseline.
    """
    return parse(Baseline, read_json(path), path)


def read_baseline(path: Path, plan: Plan, *, any_baseline: bool = False) -> Baseline:
    """The baseline in `path`, if it is for the system and partition of `plan`.

    Raises:
        InputError: if it is for another system or partition, unless `any_baseline`; or not a baseline.
    """
    baseline = parse_baseline(path)
    identity = (baseline.system, baseline.partition)
    if identity != (plan.system, plan.partition) and not any_baseline:
        raise InputError(
            f"{path}: baseline of {_name(*identity)}, not of {_name(plan.system, plan.partition)}",
            "give one of this partition, or add --any-baseline to use it all the same",
        )
    return baseline


def lost_since(
    series: dict[Key, Series], baseline: Baseline, answered: dict[Stage, set[str]], excused: Set[Excuse]
) -> list[Finding]:
    """Findings for metrics of the baseline that a node, device or link lacks now, in stages that it answered."""
    lacking: dict[tuple[Stage, tuple[str, ...]], list[Lack]] = defaultdict(list)
    for then in baseline.metrics:
        now = series.get(Key(then.stage, then.metric, then.num_nodes))
        there = answered.get(then.stage, set())
        for value in then.values if now else ():
            names = set(value.nodes)
            lack = Lack(value.device, then.metric)
            if not names <= there or any(is_excused(excused, then.stage, name, lack) for name in names):
                continue
            if Subject(value.nodes, value.device) not in now.values:  # type: ignore[union-attr]
                lacking[then.stage, value.nodes].append(lack)
    return [
        missing_finding(stage, lacks, list(nodes), "of the baseline") for (stage, nodes), lacks in lacking.items()
    ]


def _name(system: str, partition: str) -> str:
    return f"system {system!r}, partition {partition!r}" if partition else f"system {system!r}"


def compare_baseline(
    series: dict[Key, Series], baseline: Baseline, rules: tuple[PeerRule, ...]
) -> tuple[list[Deviation], list[str]]:
    """Values that are worse than the baseline, and remarks. A new node is compared with the baseline's median."""
    found: list[Deviation] = []
    not_measured, other_unit = 0, []
    for then in baseline.metrics:
        now = series.get(Key(then.stage, then.metric, then.num_nodes))
        if now is None:
            not_measured += 1
        elif now.unit != then.unit or now.better != then.better or now.is_text != (then.median is None):
            other_unit.append(then.metric)
        elif then.median is None:
            found += _changed(now, then)
        else:
            found += _worse(now, then, rules)
    then_keys = {Key(one.stage, one.metric, one.num_nodes) for one in baseline.metrics}
    num_new = sum(key not in then_keys for key in series)
    remarks = [f"baseline: of {baseline.date}, hpcai500 {baseline.hpcai500_version}, level {baseline.level}"]
    if not_measured:
        remarks.append(f"baseline: {not_measured} of its {len(baseline.metrics)} metrics were not measured now")
    if num_new:
        remarks.append(f"baseline: {num_new} metrics measured now are not in it")
    if other_unit:
        shown = ", ".join(other_unit[:5])
        remarks.append(f"baseline: {len(other_unit)} metrics changed unit or meaning, not compared: {shown}")
    return found, remarks


def _changed(now: Series, then: BaselineMetric) -> list[Deviation]:
    before = {Subject(value.nodes, value.device): value.median for value in then.values}
    return [
        Deviation(Kind.BASELINE, "warn", now, subject, values[-1], before[subject], 1.0)
        for subject, values in now.values.items()
        if subject in before and values[-1] != before[subject]
    ]


def _worse(now: Series, then: BaselineMetric, rules: tuple[PeerRule, ...]) -> list[Deviation]:
    relative = relative_bound(now.key, rules) if now.better != "same" else _SAME
    if relative is None:
        return []
    assert then.median is not None
    assert then.spread is not None
    before = {Subject(value.nodes, value.device): value for value in then.values}
    bound = factor(len(now.values))
    found = []
    for subject, value in zip(*column(now), strict=True):
        own = before.get(subject)
        reference = float(own.median) if own is not None else then.median
        if reference == 0:
            continue
        worse = float(value - reference if now.better == "lower" else reference - value)
        size = worse / abs(reference) if now.better != "same" else abs(worse / reference)
        noise = own.spread if own is not None else then.spread
        if size > relative and abs(worse) > bound * noise:
            remark = "" if own is not None else "a new node, compared with the median"
            severity = by_size(size, relative) if now.better != "same" else "warn"
            found.append(Deviation(Kind.BASELINE, severity, now, subject, float(value), reference, size, remark))
    return found
