"""Many deviations as few findings: one for what one node, device or link has in one stage."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from hpcai500.text import change, figure, node_list
from hpcai500.validate.files import Stage, Trouble
from hpcai500.validate.judge.deviations import Deviation
from hpcai500.validate.judge.findings import KINDS, SEVERITIES, Finding, Kind, Severity
from hpcai500.validate.judge.reading import Key, Series
from hpcai500.validate.judge.remedies import (
    remedy,
    remedy_of_many_links,
    remedy_of_node_links,
    remedy_of_trouble,
)

_MOST_DETAILS = 50
_MOST_LINKS = 16
"""Slow links that stand alone; more share a cause."""
_FEWEST_TOGETHER = 3
_AGAINST = {
    "peers": "median of its peers",
    "links": "median of all links",
    "baseline": "baseline",
    "expected": "expected",
    "better": "better than the median of its peers",
}


class _Atom(NamedTuple):
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
    atoms = _whole_devices(_atoms(deviations), series)
    atoms, found = _many_links(atoms)
    groups: dict[tuple[bool, Stage, tuple[str, ...], str], list[_Atom]] = defaultdict(list)
    for atom in atoms:
        groups[atom.kind == "better", atom.series.key.stage, atom.nodes, atom.device].append(atom)
    return found + [_finding(group) for group in groups.values()]


def merge_equal(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of one kind about the same nodes in one stage as one."""
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


def of_troubles(troubles: Sequence[Trouble]) -> list[Finding]:
    """Equal troubles of several nodes are one finding; those of pairs that share a node are one of that node."""
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
    return Finding(
        severity=trouble.severity,
        kind=trouble.kind,
        stage=trouble.stage,
        nodes=tuple(sorted(nodes)),
        device=trouble.device,
        metric=trouble.metric,
        message=trouble.message,
        remedy=trouble.remedy or remedy_of_trouble(trouble.kind),
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


def _atoms(deviations: Sequence[Deviation]) -> list[_Atom]:
    """Where most subjects are below a baseline or a site's value, the metric is off and not its nodes."""
    of_metric: dict[tuple[Kind, Key, str | float], list[Deviation]] = defaultdict(list)
    for one in deviations:
        is_text = isinstance(one.value, str)
        of_metric[one.kind, one.series.key, f"{one.value}\0{one.reference}" if is_text else 0.0].append(one)
    atoms = []
    for (kind, _, text), group in of_metric.items():
        num_all = len(group[0].series.values)
        is_whole = kind in ("baseline", "expected") and len(group) >= _FEWEST_TOGETHER and 2 * len(group) > num_all
        if len(group) > 1 and (is_whole or isinstance(text, str)):
            atoms.append(_whole(group, num_all))
        else:
            atoms += [_atom(one) for one in group]
    return atoms


def _atom(one: Deviation) -> _Atom:
    text = _text(one.kind, one.series, one.value, one.reference)
    if one.remark:
        text += f", {one.remark}"
    return _Atom(
        one.kind, one.severity, one.series, one.subject.nodes, one.subject.device, one.size, text, one.value,
        one.reference,
    )  # fmt: skip


def _whole(group: Sequence[Deviation], num_all: int) -> _Atom:
    first = group[0]
    nodes = tuple(sorted({name for one in group for name in one.subject.nodes}))
    value, reference = first.value, first.reference
    if not isinstance(value, str):
        value = median(float(one.value) for one in group)
        reference = median(float(one.reference) for one in group)
    text = f"{_text(first.kind, first.series, value, reference)}, {len(group)} of {num_all}"
    severity = min((one.severity for one in group), key=SEVERITIES.index)
    return _Atom(
        first.kind, severity, first.series, nodes, "", max(one.size for one in group), text, value, reference
    )


def _text(kind: Kind, series: Series, value: float | str, reference: float | str) -> str:
    text = f"{series.key.metric} {figure(value, series.unit)}, {_AGAINST[kind]} {figure(reference, series.unit)}"
    if isinstance(value, str) or isinstance(reference, str):
        return text
    part = change(value, reference)
    return f"{text} ({part})" if part else text


def _whole_devices(atoms: list[_Atom], series: dict[Key, Series]) -> list[_Atom]:
    """A node of whose devices each is off is off as a whole."""
    devices: dict[tuple[Stage, str], set[str]] = defaultdict(set)
    for key, one in series.items():
        if key.num_nodes == 1:
            for subject in one.values:
                devices[key.stage, subject.nodes[0]].add(subject.device)
    off: dict[tuple[Stage, tuple[str, ...], bool], set[str]] = defaultdict(set)
    for atom in atoms:
        off[atom.series.key.stage, atom.nodes, atom.kind == "better"].add(atom.device)

    def is_whole(atom: _Atom) -> bool:
        stage = atom.series.key.stage
        every = devices[stage, atom.nodes[0]] - {""}
        return len(atom.nodes) == 1 and len(every) > 1 and every <= off[stage, atom.nodes, atom.kind == "better"]

    return [
        atom._replace(device="", text=f"{atom.device} {atom.text}") if atom.device and is_whole(atom) else atom
        for atom in atoms
    ]


def _many_links(atoms: list[_Atom]) -> tuple[list[_Atom], list[Finding]]:
    links = [atom for atom in atoms if atom.kind == "links" and len(atom.nodes) == 2]
    if len({atom.nodes for atom in links}) <= _MOST_LINKS:
        return atoms, []
    links.sort(key=_worst_first)
    first = links[0]
    nodes = tuple(sorted({name for atom in links for name in atom.nodes}))
    finding = _finding(links).model_copy(
        update={
            "nodes": nodes,
            "message": f"{len({atom.nodes for atom in links})} links between {len(nodes)} nodes are slow, worst: "
            f"{' - '.join(first.nodes)}: {first.text}",
            "remedy": remedy_of_many_links(),
            "details": tuple(f"{' - '.join(atom.nodes)}: {atom.text}" for atom in links[1:_MOST_DETAILS]),
        }
    )
    return [atom for atom in atoms if atom not in links], [finding]


def _worst_first(atom: _Atom) -> tuple[int, float, str]:
    return SEVERITIES.index(atom.severity), -atom.size, atom.text


def _finding(atoms: list[_Atom]) -> Finding:
    ordered = sorted(atoms, key=_worst_first)
    worst = ordered[0]
    kind = min((atom.kind for atom in ordered if atom.severity == worst.severity), key=KINDS.index)
    is_of_node = kind == "links" and len(worst.nodes) == 1
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
        remedy=remedy_of_node_links() if is_of_node else remedy(kind, worst.series.key),
        details=tuple(atom.text for atom in ordered[1:_MOST_DETAILS]),
    )


def _more(number: int) -> str:
    return "1 more" if number == 1 else f"{number} more"


def subject_text(finding: Finding) -> str:
    """Whom a finding concerns, short: `node[01-03] gpu0`, `a - b`, `(all)`."""
    if not finding.nodes:
        return "(all)"
    is_link = finding.stage == "links" and len(finding.nodes) == 2
    names = " - ".join(finding.nodes) if is_link else node_list(finding.nodes)
    return f"{names} {finding.device}" if finding.device else names
