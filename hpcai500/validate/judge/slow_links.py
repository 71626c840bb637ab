"""Comparison of each link with all links; slow links that share a node are blamed on that node.

A bad adapter slows all N - 1 links of its node. Among few nodes that is half of all links or more, and the plain
median would be that of slow links. So each node first gives its typical link, the better of the two middle ones. The
centre is the median over nodes; likewise the scale. That works until half of the nodes are bad.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hpcai500.validate.judge.bounds import (
    FEWEST,
    Array,
    PeerRule,
    beyond_noise,
    consistency,
    relative_bound,
    shortfall,
)
from hpcai500.validate.judge.deviations import Deviation, by_size
from hpcai500.validate.judge.findings import Kind
from hpcai500.validate.judge.peers import column
from hpcai500.validate.judge.reading import Series, Subject


def compare_links(series: Series, rules: Sequence[PeerRule]) -> list[Deviation]:
    """Slow links. If most links of a node are slow, and at least two, they are one deviation of that node."""
    relative = relative_bound(series.key, rules)
    links = column(series)
    if relative is None or len(links.values) < FEWEST:
        return []
    of_node = _of_node(links.subjects)
    centre, scale = _centre_and_scale(links.values, of_node, is_lower=series.better == "lower")
    if centre == 0:
        return []
    part = shortfall(links.values, centre, series.better)
    is_slow = (part > relative) & beyond_noise(links.values, centre, scale, series.better)
    slow = set(map(int, np.flatnonzero(is_slow)))
    found = []
    for name, own in _culprits(of_node, slow):
        value = float(np.median(links.values[own]))
        size = float(shortfall(np.asarray([value]), centre, series.better)[0])
        num_all = len(of_node[name])
        remark = f"{len(own)} of its {num_all} links"
        found.append(
            Deviation(Kind.LINKS, by_size(size, relative), series, Subject((name,)), value, centre, size, remark)
        )
        slow.difference_update(own)
    for index in sorted(slow):
        size = float(part[index])
        value = float(links.values[index])
        found.append(
            Deviation(Kind.LINKS, by_size(size, relative), series, links.subjects[index], value, centre, size)
        )
    return found


def _of_node(subjects: Sequence[Subject]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for index, subject in enumerate(subjects):
        for name in subject.nodes:
            found[name].append(index)
    return found


def _centre_and_scale(values: Array, of_node: dict[str, list[int]], *, is_lower: bool) -> tuple[float, float]:
    typical = [_middle(values[own], better_is_low=is_lower) for own in of_node.values()]
    centre = float(np.median(typical))
    distance = np.abs(values - centre)
    scale = float(np.median([_middle(distance[own], better_is_low=True) for own in of_node.values()]))
    return centre, consistency(len(values)) * scale


def _middle(values: Array, *, better_is_low: bool) -> float:
    """Median; the better of two middle values."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2 if better_is_low else len(ordered) // 2])


def _culprits(of_node: dict[str, list[int]], slow: set[int]) -> list[tuple[str, list[int]]]:
    """Nodes with their slow links: at least two that no worse node explains, and over half of those that remain."""
    links = {name: set(own) for name, own in of_node.items()}
    ends = defaultdict(list)
    for name, own in links.items():
        for index in own & slow:
            ends[index].append(name)
    bad = {name: own & slow for name, own in links.items() if own & slow}
    found = []
    while bad:
        name = max(bad, key=lambda one: (len(bad[one]), one))
        own = bad.pop(name)
        if len(own) < 2:
            break
        if 2 * len(own) <= len(links[name]):
            continue
        found.append((name, sorted(own)))
        for index in own:
            for other in ends[index]:
                links[other].discard(index)
                if other in bad:
                    bad[other].discard(index)
    return found
