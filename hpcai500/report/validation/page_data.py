"""What the report's script draws: the heat map and the link matrix, kept small."""

from typing import Any, NamedTuple

import numpy as np

from hpcai500.report.validation.document import nodes
from hpcai500.text import figure, natural
from hpcai500.validate.judge.bounds import PeerRule, relative_bound
from hpcai500.validate.judge.findings import SEVERITIES
from hpcai500.validate.judge.peers import column
from hpcai500.validate.judge.reading import Series
from hpcai500.validate.judge.verdict import Report

_MOST_CELLS = 400_000
"""Of the heat map: about 2 MB. Beyond, only the nodes that are worst."""
_MOST_COLUMNS = 120
_MOST_IN_MATRIX = 48
_MOST_LINK_METRICS = 6
_WORST_LINKS = 10


class _Row(NamedTuple):
    name: str
    severity: int
    """Index into SEVERITIES; 3 for none."""
    worst: float
    cells: list[int | None]


def page_data(report: Report) -> dict[str, Any]:
    """Columns and rows of the heat map, worst node first, and a matrix for each metric of links."""
    columns = _columns(report)
    rows = _rows(report, columns)
    most = max(1, _MOST_CELLS // max(1, len(columns)))
    links = [series for key, series in report.series.items() if key.num_nodes == 2 and not series.is_text]
    return {
        "columns": [_heading(series, report.rules) for series in columns],
        "rows": [[row.name, row.severity, row.cells] for row in rows[:most]],
        "num_nodes": len(rows),
        "matrices": [_matrix(series, report.rules) for series in links[:_MOST_LINK_METRICS]],
    }


def _columns(report: Report) -> list[Series]:
    """Figures of single nodes whose median is not zero."""
    found = [
        series
        for key, series in report.series.items()
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


def _rows(report: Report, columns: list[Series]) -> list[_Row]:
    """A node's cell is the thousandths by which its worst device differs from the median."""
    place = {name: index for index, name in enumerate(report.plan.nodes)}
    cells = np.full((len(place), len(columns)), np.nan)
    worst = np.zeros(len(place))
    for index, series in enumerate(columns):
        subjects, values = column(series)
        centre = float(np.median(values))
        sign = 1 if series.better == "lower" else -1
        worse = np.full(len(place), -np.inf)
        at = np.asarray([place[subject.nodes[0]] for subject in subjects])
        np.maximum.at(worse, at, sign * (values - centre) / abs(centre))
        is_there = np.isfinite(worse)
        cells[is_there, index] = sign * worse[is_there]
        bound = relative_bound(series.key, report.rules)
        if bound is not None:
            worst = np.maximum(worst, np.where(is_there, worse / bound, 0))
    severities = _severities(report)
    thousandths = np.clip(np.round(1_000 * cells), -99_999, 99_999)
    rows = [
        _Row(name, severities[name], float(worst[index]), [None if cell != cell else int(cell) for cell in own])
        for (name, index), own in zip(place.items(), thousandths.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (row.severity, -row.worst, natural(row.name)))


def _severities(report: Report) -> dict[str, int]:
    found = {one.node: len(SEVERITIES) for one in nodes(report)}
    for finding in report.findings:
        for name in finding.nodes:
            found[name] = min(found[name], SEVERITIES.index(finding.severity))
    return found


def _matrix(series: Series, rules: tuple[PeerRule, ...]) -> dict[str, Any]:
    """Links between the nodes whose slowest link is worst, in the nodes' own order; and the slowest of all."""
    subjects, values = column(series)
    centre = float(np.median(values))
    sign = 1 if series.better == "lower" else -1
    worse = sign * (values - centre) / (abs(centre) or 1)
    slowest: dict[str, float] = {}
    for subject, part in zip(subjects, worse, strict=True):
        for name in subject.nodes:
            slowest[name] = max(slowest.get(name, -np.inf), part)
    shown = sorted(sorted(slowest, key=lambda name: -slowest[name])[:_MOST_IN_MATRIX], key=natural)
    place = {name: index for index, name in enumerate(shown)}
    cells = [
        [place[subject.nodes[0]], place[subject.nodes[1]], round(1_000 * sign * float(part))]
        for subject, part in zip(subjects, worse, strict=True)
        if subject.nodes[0] in place and subject.nodes[1] in place
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
