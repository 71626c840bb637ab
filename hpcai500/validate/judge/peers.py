"""Comparison of each node with the others: figures by median and MAD, texts by majority."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

import numpy as np

from hpcai500.text import figure, node_list
from hpcai500.validate.files import Stage
from hpcai500.validate.judge.bounds import (
    FEWEST,
    Array,
    PeerRule,
    beyond_noise,
    centre_and_scale,
    factor,
    relative_bound,
    shortfall,
)
from hpcai500.validate.judge.deviations import Deviation, by_size
from hpcai500.validate.judge.findings import Finding, Kind
from hpcai500.validate.judge.reading import Key, Series, Subject
from hpcai500.validate.judge.remedies import remedy

_SAME = 1e-6
"""Relative tolerance within which two losses are equal."""


class Column(NamedTuple):
    """A numeric series as arrays; a subject that was measured several times has its median."""

    subjects: list[Subject]
    values: Array


def column(series: Series) -> Column:
    subjects = list(series.values)
    medians = [
        values[0] if len(values) == 1 else np.median(np.asarray(values, float)) for values in series.values.values()
    ]
    return Column(subjects, np.asarray(medians, float))


def compare_figures(series: Series, rules: Sequence[PeerRule]) -> tuple[list[Deviation], Finding | None]:
    """Deviations on either side, and a finding if values spread too far to find out which is slow."""
    relative = relative_bound(series.key, rules)
    subjects, values = column(series)
    if relative is None or len(values) < FEWEST:
        return [], None
    centre, scale = centre_and_scale(values)
    if centre == 0:
        return [], None
    part = shortfall(values, centre, series.better)
    is_off = (np.abs(part) > relative) & beyond_noise(values, centre, scale, series.better)
    found = [
        Deviation(
            Kind.PEERS if part[index] > 0 else Kind.BETTER,
            by_size(part[index], relative) if part[index] > 0 else "note",
            series,
            subjects[index],
            float(values[index]),
            centre,
            abs(float(part[index])),
        )
        for index in np.flatnonzero(is_off)
    ]
    return found, _spread(series, values, centre, scale, relative)


def compare_sameness(series: Series) -> list[Finding]:
    """Findings in a series that must be equal: each minority value, or all values if there is no strict majority."""
    is_discrete = series.is_text or all(
        isinstance(value, float) and value.is_integer() for values in series.values.values() for value in values
    )
    return _compare_discrete(series) if is_discrete else _compare_nearly_equal(series)


def _compare_discrete(series: Series) -> list[Finding]:
    camps: dict[float | str, list[Subject]] = defaultdict(list)
    for subject, values in series.values.items():
        for value in Counter(values):
            camps[value].append(subject)
    if len(camps) < 2:
        return []
    ordered = sorted(camps, key=lambda value: (-len(camps[value]), str(value)))
    most = ordered[0]
    if 2 * len(camps[most]) > len(series.values):
        return [_minority_finding(series, value, camps[value], most, len(camps[most])) for value in ordered[1:]]
    shown = "; ".join(f"{figure(value, series.unit)} on {node_list(_nodes(camps[value]))}" for value in ordered[:4])
    more = f"; and {len(ordered) - 4} more values" if len(ordered) > 4 else ""
    return [
        Finding(
            severity="fail",
            kind=Kind.SPLIT,
            stage=series.key.stage,
            nodes=tuple(_nodes(subject for camp in camps.values() for subject in camp)),
            metric=series.key.metric,
            unit=series.unit,
            message=f"nodes disagree in {series.key.metric}, and no value has the majority: {shown}{more}",
            remedy=remedy(Kind.SPLIT, series.key),
        )
    ]


def _compare_nearly_equal(series: Series) -> list[Finding]:
    """Findings in losses: those that differ by more than a millionth, and by more than the others' noise."""
    subjects, values = column(series)
    if len(values) < 2:
        return []
    centre, scale = centre_and_scale(values)
    if len(values) < FEWEST:
        is_off = np.full(len(values), bool(np.ptp(values) > _SAME * np.abs(values).max()))
    else:
        distance = np.abs(values - centre)
        is_off = (distance > _SAME * abs(centre)) & (distance > factor(len(values)) * scale)
    if not is_off.any():
        return []
    if is_off.all():
        pairs = ", ".join(
            f"{figure(float(value), series.unit, 9)} on {subject}"
            for subject, value in zip(subjects, values, strict=True)
        )
        message = f"nodes disagree in {series.key.metric}, and two values cannot show which is right: {pairs}"
        return [
            Finding(
                severity="fail",
                kind=Kind.SPLIT,
                stage=series.key.stage,
                nodes=tuple(_nodes(subjects)),
                metric=series.key.metric,
                unit=series.unit,
                message=message,
                remedy=remedy(Kind.SPLIT, series.key),
            )
        ]
    num_others = int((~is_off).sum())
    return [
        _minority_finding(series, float(values[index]), [subjects[index]], centre, num_others)
        for index in np.flatnonzero(is_off)
    ]


def _minority_finding(
    series: Series, value: float | str, subjects: list[Subject], most: float | str, num_others: int
) -> Finding:
    devices = {subject.device for subject in subjects}
    return Finding(
        severity="fail",
        kind=Kind.DIFFERS,
        stage=series.key.stage,
        nodes=tuple(_nodes(subjects)),
        device=devices.pop() if len(devices) == 1 else "",
        metric=series.key.metric,
        unit=series.unit,
        value=value,
        reference=most,
        message=f"{series.key.metric} is {figure(value, series.unit, 9)}; "
        f"{num_others} {'other has' if num_others == 1 else 'others have'} {figure(most, series.unit, 9)}",
        remedy=remedy(Kind.DIFFERS, series.key),
    )


def _spread(series: Series, values: Array, centre: float, scale: float, relative: float) -> Finding | None:
    if scale <= 2 * relative * abs(centre):
        return None
    low, high = (figure(float(end), series.unit) for end in (values.min(), values.max()))
    return Finding(
        severity="warn",
        kind=Kind.SPREAD,
        stage=series.key.stage,
        nodes=(),
        metric=series.key.metric,
        unit=series.unit,
        value=scale / abs(centre),
        reference=2 * relative,
        message=f"{series.key.metric} spreads too far between nodes to tell which is slow: {low} to {high}, "
        f"robust deviation {100 * scale / abs(centre):.3g} % of the median",
        remedy=remedy(Kind.SPREAD, series.key),
    )


def _nodes(subjects: Iterable[Subject]) -> list[str]:
    return sorted({name for subject in subjects for name in subject.nodes})


class Lack(NamedTuple):
    """One missing metric of a node or of one of its devices."""

    device: str
    metric: str

    def __str__(self) -> str:
        return f"{self.device} {self.metric}".strip()


class Excuse(NamedTuple):
    """What a trouble explains: one metric that a node lacks in a stage, or all metrics."""

    stage: Stage
    node: str
    lack: Lack | None = None
    """The metric; None for all metrics."""


def is_excused(excused: Set[Excuse], stage: Stage, node: str, lack: Lack) -> bool:
    return Excuse(stage, node) in excused or Excuse(stage, node, lack) in excused


def missing(series: dict[Key, Series], answered: dict[Stage, set[str]], excused: Set[Excuse]) -> list[Finding]:
    """Metrics of single nodes that most nodes have and some lack: one finding for all nodes with the same gaps."""
    lacking: dict[tuple[Stage, str], list[Lack]] = defaultdict(list)
    for key, one in series.items():
        if key.num_nodes != 1:
            continue
        holders: dict[str, set[str]] = defaultdict(set)
        for subject in one.values:
            holders[subject.device].add(subject.nodes[0])
        there = answered.get(key.stage, set())
        for device, nodes in holders.items():
            if 2 * len(nodes) > len(there):
                lack = Lack(device, key.metric)
                for name in there - nodes:
                    if not is_excused(excused, key.stage, name, lack):
                        lacking[key.stage, name].append(lack)
    together: dict[tuple[Stage, tuple[Lack, ...]], list[str]] = defaultdict(list)
    for (stage, name), lacks in lacking.items():
        together[stage, tuple(lacks)].append(name)
    return [missing_finding(stage, lacks, nodes) for (stage, lacks), nodes in together.items()]


def missing_finding(
    stage: Stage, lacks: Sequence[Lack], nodes: list[str], whose: str = "that most nodes have"
) -> Finding:
    count = f"{len(lacks)} metrics {whose}, first: " if len(lacks) > 1 else ""
    return Finding(
        severity="fail",
        kind=Kind.MISSING,
        stage=stage,
        nodes=tuple(sorted(nodes)),
        metric=lacks[0].metric,
        message=f"did not report {count}{lacks[0]}",
        remedy=Kind.MISSING.remedy,
        details=tuple(map(str, lacks[1:50])),
    )
