"""Data for the page's script: the heat map and the link matrices, limited in size."""

from typing import Any, NamedTuple

import numpy as np

from hpcai500.report.validation.document import nodes
from hpcai500.text import figure, natural
from hpcai500.validate.judge.assessment import Assessment
from hpcai500.validate.judge.bounds import PeerRule, relative_bound
from hpcai500.validate.judge.findings import SEVERITIES
from hpcai500.validate.judge.peers import column
from hpcai500.validate.judge.reading import Series

_MOST_CELLS = 400_000
"""Cells of the heat map, about 2 MB. If there are more, only the worst nodes are shown."""
_MOST_COLUMNS = 120
_MOST_IN_MATRIX = 48
_MOST_LINK_METRICS = 6
_WORST_LINKS = 10


class _Row(NamedTuple):
    name: str
    severity: int
    """Index into SEVERITIES; 3 without findings."""
    worst: float
    cells: list[int | None]


def page_data(assessment: Assessment) -> dict[str, Any]:
    """Columns and rows of the heat map, worst node first, and one matrix per metric of links."""
    columns = _columns(assessment)
    rows = _rows(assessment, columns)
    most = max(1, _MOST_CELLS // max(1, len(columns)))
    links = [series for key, series in assessment.series.items() if key.num_nodes == 2 and not series.is_text]
    return {
        "columns": [_heading(series, assessment.rules) for series in columns],
        "rows": [[row.name, row.severity, row.cells] for row in rows[:most]],
        "num_nodes": len(rows),
        "matrices": [_matrix(series, assessment.rules) for series in links[:_MOST_LINK_METRICS]],
    }


def _columns(assessment: Assessment) -> list[Series]:
    """Numeric series of single nodes whose median is not zero."""
    found = [
        series
        for key, series in assessment.series.items()
        if key.num_nodes == 1 and not series.is_text and series.better != "same" and np.median(column(series).values)
    ]
    return found[:_MOST_COLUMNS]


def _heading(series: Series, rules: tuple[PeerRule, ...]) -> dict[str, Any]:
    centre = float(np.median(column(series).values))
    return {
        "stage": series.key.stage,
        "metric": series.key.metric,
        "better": series.better,
        "median": figure(centre, series.unit),
        "bound": relative_bound(series.key, rules),
    }


def _rows(assessment: Assessment, columns: list[Series]) -> list[_Row]:
    """Rows of the heat map. A cell is the difference of the node's worst device from the median, in thousandths."""
    position = {name: index for index, name in enumerate(assessment.plan.nodes)}
    cells = np.full((len(position), len(columns)), np.nan)
    worst = np.zeros(len(position))
    for index, series in enumerate(columns):
        subjects, values = column(series)
        centre = float(np.median(values))
        sign = 1 if series.better == "lower" else -1
        worse = np.full(len(position), -np.inf)
        at = np.asarray([position[subject.nodes[0]] for subject in subjects])
        np.maximum.at(worse, at, sign * (values - centre) / abs(centre))
        is_there = np.isfinite(worse)
        cells[is_there, index] = sign * worse[is_there]
        bound = relative_bound(series.key, assessment.rules)
        if bound is not None:
            worst = np.maximum(worst, np.where(is_there, worse / bound, 0))
    severities = _severities(assessment)
    thousandths = np.clip(np.round(1_000 * cells), -99_999, 99_999)
    rows = [
        _Row(name, severities[name], float(worst[index]), [None if cell != cell else int(cell) for cell in own])
        for (name, index), own in zip(position.items(), thousandths.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (row.severity, -row.worst, natural(row.name)))


def _severities(assessment: Assessment) -> dict[str, int]:
    found = {one.node: len(SEVERITIES) for one in nodes(assessment)}
    for finding in assessment.findings:
        for name in finding.nodes:
            found[name] = min(found[name], SEVERITIES.index(finding.severity))
    return found


def _matrix(series: Series, rules: tuple[PeerRule, ...]) -> dict[str, Any]:
    """Links between the nodes with the slowest links, in the nodes' order, and the slowest links of all."""
    subjects, values = column(series)
    centre = float(np.median(values))
    sign = 1 if series.better == "lower" else -1
    worse = sign * (values - centre) / (abs(centre) or 1)
    slowest: dict[str, float] = {}
    for subject, part in zip(subjects, worse, strict=True):
        for name in subject.nodes:
            slowest[name] = max(slowest.get(name, -np.inf), part)
    shown = sorted(sorted(slowest, key=lambda name: -slowest[name])[:_MOST_IN_MATRIX], key=natural)
    position = {name: index for index, name in enumerate(shown)}
    cells = [
        [position[subject.nodes[0]], position[subject.nodes[1]], round(1_000 * sign * float(part))]
        for subject, part in zip(subjects, worse, strict=True)
        if subject.nodes[0] in position and subject.nodes[1] in position
    ]
    order = np.argsort(-worse)[:_WORST_LINKS]
    return {
        **_heading(series, rules),
        "names": shown,
        "num_nodes": len(slowest),
        "cells": cells,
        "worst": [
            [*subjects[index].nodes, figure(float(values[index]), series.unit), round(1_000 * sign * worse[index])]
            for index in order
        ],
    }
