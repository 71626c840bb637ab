"""Few findings from many deviations: one for each node, device or link in each stage."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from hpcai500.text import change, figure, node_list
from hpcai500.validate.files import Stage, Trouble
from hpcai500.validate.judge.deviations import Deviation
from hpcai500.validate.judge.findings import SEVERITIES, Finding, Kind, Severity
from hpcai500.validate.judge.reading import Key, Series
from hpcai500.validate.judge.remedies import MANY_LINKS, NODE_LINKS, remedy

_MOST_DETAILS = 50
_MOST_LINKS = 16
"""Slow links that are reported one by one; more have a common cause."""
_FEWEST_TOGETHER = 3
_REFERENCE = {
    Kind.PEERS: "median of its peers",
    Kind.LINKS: "median of all links",
    Kind.BASELINE: "baseline",
    Kind.EXPECTED: "expected",
    Kind.BETTER: "better than the median of its peers",
}
"""What the reference of a deviation is, by kind."""


class _Part(NamedTuple):
    """One metric of one finding."""

    kind: Kind
    severity: Severity
    series: Series
    nodes: tuple[str, ...]
    device: str
    size: float
    text: str
    value: float | str
    reference: float | str


def findings_of(deviations: Sequence[Deviation], series: dict[Key, Series]) -> list[Finding]:
    """One finding for each node, device, link or set of nodes in each stage, worst metric first."""
    parts = _whole_devices(_parts(deviations), series)
    parts, found = _many_links(parts)
    groups: dict[tuple[bool, Stage, tuple[str, ...], str], list[_Part]] = defaultdict(list)
    for part in parts:
        groups[part.kind is Kind.BETTER, part.series.key.stage, part.nodes, part.device].append(part)
    return found + [_finding(group) for group in groups.values()]


def merge_equal(findings: Sequence[Finding]) -> list[Finding]:
    """Findings with those of the same kind, stage and nodes merged into one."""
    groups: dict[tuple[str, str, str, tuple[str, ...], str], list[Finding]] = defaultdict(list)
    for one in findings:
        groups[one.severity, one.kind, one.stage, one.nodes, one.device].append(one)
    merged = []
    for group in groups.values():
        first, rest = group[0], group[1:]
        if rest:
            first = first.model_copy(
                update={
                    "message": f"{first.message}; and {_more(len(rest))}",
                    "details": tuple(one.message for one in rest[:_MOST_DETAILS]),
                }
            )
        merged.append(first)
    return merged


def findings_of_troubles(troubles: Sequence[Trouble]) -> list[Finding]:
    """Findings from troubles: one for equal troubles of several nodes, and one for pairs that share a node."""
    groups: dict[tuple[str, ...], list[Trouble]] = defaultdict(list)
    for one in troubles:
        pair = "pair" if len(one.nodes) == 2 else "/".join(one.nodes) if len(one.nodes) > 2 else ""
        same = ("", "", "") if pair == "pair" else (one.message, one.remedy, one.device)
        groups[one.stage, one.kind, one.severity, one.metric, pair, *same].append(one)
    found: list[Finding] = []
    for group in groups.values():
        if len(group[0].nodes) == 2:
            found += _of_pairs(group)
        else:
            found.append(_of_trouble(group[0], {name for one in group for name in one.nodes}))
    return found


def _of_trouble(trouble: Trouble, nodes: set[str], details: Sequence[str] = ()) -> Finding:
    kind = Kind(trouble.kind)
    return Finding(
        severity=trouble.severity,
        kind=kind,
        stage=trouble.stage,
        nodes=tuple(sorted(nodes)),
        device=trouble.device,
        metric=trouble.metric,
        message=trouble.message,
        remedy=trouble.remedy or kind.remedy,
        details=tuple(details[:_MOST_DETAILS]),
    )


def _of_pairs(troubles: Sequence[Trouble]) -> list[Finding]:
    left = {one.nodes: one for one in troubles}
    found: list[Finding] = []
    while left:
        of_node: dict[str, list[Trouble]] = defaultdict(list)
        for one in left.values():
            for name in one.nodes:
                of_node[name].append(one)
        name = max(of_node, key=lambda name: (len(of_node[name]), name))
        own = of_node[name]
        if len(own) < 2:
            return found + [_of_trouble(one, set(one.nodes)) for one in left.values()]
        details = [f"{' - '.join(one.nodes)}: {one.message}" for one in own]
        first = own[0].model_copy(update={"message": f"with {len(own)} other nodes, first: {own[0].message}"})
        found.append(_of_trouble(first, {name}, details))
        left = {nodes: one for nodes, one in left.items() if name not in nodes}
    return found


def _parts(deviations: Sequence[Deviation]) -> list[_Part]:
    """Deviations, merged into one if most subjects miss a baseline or a site's value: then the metric is off."""
    of_metric: dict[tuple[Kind, Key, str | float], list[Deviation]] = defaultdict(list)
    for one in deviations:
        is_text = isinstance(one.value, str)
        of_metric[one.kind, one.series.key, f"{one.value}\0{one.reference}" if is_text else 0.0].append(one)
    parts = []
    for (kind, _, text), group in of_metric.items():
        num_all = len(group[0].series.values)
        is_whole = (
            kind in (Kind.BASELINE, Kind.EXPECTED) and len(group) >= _FEWEST_TOGETHER and 2 * len(group) > num_all
        )
        if len(group) > 1 and (is_whole or isinstance(text, str)):
            parts.append(_whole(group, num_all))
        else:
            parts += [_part(one) for one in group]
    return parts


def _part(one: Deviation) -> _Part:
    text = _text(one.kind, one.series, one.value, one.reference)
    if one.remark:
        text += f", {one.remark}"
    return _Part(
        one.kind, one.severity, one.series, one.subject.nodes, one.subject.device, one.size, text, one.value,
        one.reference,
    )  # fmt: skip


def _whole(group: Sequence[Deviation], num_all: int) -> _Part:
    first = group[0]
    nodes = tuple(sorted({name for one in group for name in one.subject.nodes}))
    value, reference = first.value, first.reference
    if not isinstance(value, str):
        value = median(float(one.value) for one in group)
        reference = median(float(one.reference) for one in group)
    text = f"{_text(first.kind, first.series, value, reference)}, {len(group)} of {num_all}"
    severity = min((one.severity for one in group), key=SEVERITIES.index)
    return _Part(
        first.kind, severity, first.series, nodes, "", max(one.size for one in group), text, value, reference
    )


def _text(kind: Kind, series: Series, value: float | str, reference: float | str) -> str:
    text = f"{series.key.metric} {figure(value, series.unit)}, {_REFERENCE[kind]} {figure(reference, series.unit)}"
    if isinstance(value, str) or isinstance(reference, str):
        return text
    difference = change(value, reference)
    return f"{text} ({difference})" if difference else text


def _whole_devices(parts: list[_Part], series: dict[Key, Series]) -> list[_Part]:
    """Parts of devices, turned into parts of their node if all its devices are off."""
    devices: dict[tuple[Stage, str], set[str]] = defaultdict(set)
    for key, one in series.items():
        if key.num_nodes == 1:
            for subject in one.values:
                devices[key.stage, subject.nodes[0]].add(subject.device)
    off: dict[tuple[Stage, tuple[str, ...], bool], set[str]] = defaultdict(set)
    for part in parts:
        off[part.series.key.stage, part.nodes, part.kind is Kind.BETTER].add(part.device)

    def is_whole(part: _Part) -> bool:
        stage = part.series.key.stage
        every = devices[stage, part.nodes[0]] - {""}
        return len(part.nodes) == 1 and len(every) > 1 and every <= off[stage, part.nodes, part.kind is Kind.BETTER]

    return [
        part._replace(device="", text=f"{part.device} {part.text}") if part.device and is_whole(part) else part
        for part in parts
    ]


def _many_links(parts: list[_Part]) -> tuple[list[_Part], list[Finding]]:
    links = [part for part in parts if part.kind is Kind.LINKS and len(part.nodes) == 2]
    if len({part.nodes for part in links}) <= _MOST_LINKS:
        return parts, []
    links.sort(key=_worst_first)
    first = links[0]
    nodes = tuple(sorted({name for part in links for name in part.nodes}))
    finding = _finding(links).model_copy(
        update={
            "nodes": nodes,
            "message": f"{len({part.nodes for part in links})} links between {len(nodes)} nodes are slow, worst: "
            f"{' - '.join(first.nodes)}: {first.text}",
            "remedy": MANY_LINKS,
            "details": tuple(f"{' - '.join(part.nodes)}: {part.text}" for part in links[1:_MOST_DETAILS]),
        }
    )
    return [part for part in parts if part not in links], [finding]


def _worst_first(part: _Part) -> tuple[int, float, str]:
    return SEVERITIES.index(part.severity), -part.size, part.text


def _finding(parts: list[_Part]) -> Finding:
    ordered = sorted(parts, key=_worst_first)
    worst = ordered[0]
    kind = min((part.kind for part in ordered if part.severity == worst.severity), key=list(Kind).index)
    is_of_node = kind is Kind.LINKS and len(worst.nodes) == 1
    message = f"{worst.text}; and {_more(len(ordered) - 1)}" if len(ordered) > 1 else worst.text
    return Finding(
        severity=worst.severity,
        kind=kind,
        stage=worst.series.key.stage,
        nodes=worst.nodes,
        device=worst.device,
        metric=worst.series.key.metric,
        unit=worst.series.unit,
        value=worst.value,
        reference=worst.reference,
        message=message,
        remedy=NODE_LINKS if is_of_node else remedy(kind, worst.series.key),
        details=tuple(part.text for part in ordered[1:_MOST_DETAILS]),
    )


def _more(number: int) -> str:
    return "1 more" if number == 1 else f"{number} more"


def subject_text(finding: Finding) -> str:
    """Subject of a finding in short: `node[01-03] gpu0`, `a - b`, `(all)`."""
    if not finding.nodes:
        return "(all)"
    is_link = finding.stage == "links" and len(finding.nodes) == 2
    names = " - ".join(finding.nodes) if is_link else node_list(finding.nodes)
    return f"{names} {finding.device}" if finding.device else names
