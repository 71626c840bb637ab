"""Nodes of a run compared: equal ones are stored once, others by what differs."""

from collections.abc import Iterable, Iterator
from typing import Any

from hpcai500.files import digest


def group_nodes(nodes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Kinds of nodes with their hosts, the most common first, and how each other kind differs from it."""
    groups: dict[str, dict[str, Any]] = {}
    for node in nodes:
        group = groups.setdefault(digest(node["layers"]), {"hosts": [], "layers": node["layers"]})
        group["hosts"].append(node["host"])
    ordered = sorted(groups.values(), key=lambda group: (-len(group["hosts"]), group["hosts"]))
    common = ordered[0]["layers"] if ordered else {}
    return {
        "schema_version": 1,
        "nodes": [{"count": len(g["hosts"]), **g} for g in ordered],
        "differences": [
            {"hosts": g["hosts"], "layer": int(layer), "key": key, "common": usual, "here": here}
            for g in ordered[1:]
            for layer in sorted(g["layers"])
            for key, usual, here in differences(common.get(layer), g["layers"][layer])
        ],
    }


def differences(left: Any, right: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, left value and right value, for each difference of two JSON values."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted({*left, *right}):
            yield from differences(left.get(name), right.get(name), f"{key}.{name}" if key else name)
    elif left != right or type(left) is not type(right):
        yield key, left, right


def warnings(system: dict[str, Any]) -> list[str]:
    """One line for each way in which nodes of a run differ."""
    return [
        f"{', '.join(found['hosts'])}: Layer {found['layer']} differs from the other nodes: "
        f"{found['key']} is {found['here']!r}, not {found['common']!r}"
        for found in system.get("differences", [])
    ]


def with_earlier(system: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """`system` with the kinds of nodes that only `before`, an earlier start of the same run, has."""
    present = {digest(group["layers"]) for group in system["nodes"]}
    groups = [*before.get("earlier_nodes", []), *before.get("nodes", [])]
    earlier = [group for group in groups if digest(group["layers"]) not in present]
    return system | ({"earlier_nodes": earlier} if earlier else {})
