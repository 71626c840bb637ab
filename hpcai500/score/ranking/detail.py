"""What a page shows of an opened entry beyond its figures: the curves of its runs, and its nine layers."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hpcai500.errors import InputError
from hpcai500.score.ranking.collection import Run
from hpcai500.score.ranking.entries import Entry, RankedList
from hpcai500.score.record.limits import MOST_DETAILED
from hpcai500.score.record.run_files import RUN, SYSTEM, RunFiles
from hpcai500.score.record.source import Source
from hpcai500.spec.layers import LAYER_OF_TABLE, Layer
from hpcai500.text import one_line

_LONGEST_TEXT = 160
_MOST_VALUES = 40
_DEEPEST = 4
"""Tables in tables in a layer: what lies deeper is one value."""

Layers = tuple[tuple[tuple[str, str], ...], ...]


def with_details(lists: Sequence[RankedList], runs: Sequence[Run]) -> list[RankedList]:
    """`lists`, with curves and layers for the first 200 entries of them all."""
    by_name = {(run.files.source, run.result.identity.run_id): run for run in runs}
    room = MOST_DETAILED
    detailed = []
    for ranked in lists:
        entries = (*(_with_detail(entry, by_name) for entry in ranked.entries[:room]), *ranked.entries[room:])
        detailed.append(ranked.model_copy(update={"entries": entries}))
        room = max(0, room - len(ranked.entries))
    return detailed


def _with_detail(entry: Entry, by_name: dict[tuple[Source, str], Run]) -> Entry:
    members = [by_name[figures.path, figures.run_id] for figures in entry.runs]
    runs = tuple(
        figures.model_copy(update={"curve": run.points.curve()})
        for figures, run in zip(entry.runs, members, strict=True)
    )
    return entry.model_copy(update={"runs": runs, "layers": _layers(members[0].files)})


def _layers(files: RunFiles) -> Layers:
    """The nine layers: 1 to 6 of the most common kind of node, 7 to 9 of run.json."""
    found: dict[int, list[tuple[str, str]]] = {layer.value: [] for layer in Layer}
    nodes = _record(files, SYSTEM).get("nodes")
    layers = nodes[0].get("layers") if isinstance(nodes, list) and nodes and isinstance(nodes[0], dict) else None
    for number, values in (layers if isinstance(layers, dict) else {}).items():
        if number in {"1", "2", "3", "4", "5", "6"}:
            found[int(number)] = list(_pairs(values, ""))
    run = _record(files, RUN)
    settings = run.get("settings")
    for table, values in (settings if isinstance(settings, dict) else {}).items():
        layer = LAYER_OF_TABLE.get(table)
        if layer and layer.value >= Layer.WORKLOAD_IMPLEMENTATION:
            found[layer.value] += _pairs({table: values}, "")
    if isinstance(run.get("workload"), dict):
        identity = {key: value for key, value in run["workload"].items() if key in ("name", "model", "code_digest")}
        found[Layer.WORKLOAD_IMPLEMENTATION][:0] = _pairs(identity, "")
    return tuple(tuple(found[layer.value][:_MOST_VALUES]) for layer in Layer)


def _record(files: RunFiles, name: str) -> dict[str, Any]:
    """The record in the file `name`; empty if there is none that can be read."""
    try:
        record = files.record(name)
    except InputError:
        return {}
    return record if isinstance(record, dict) else {}


def _pairs(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Nested tables as dotted names and texts."""
    if isinstance(value, dict) and name.count(".") < _DEEPEST:
        for key, inner in value.items():
            yield from _pairs(inner, f"{name}.{key}" if name else str(key))
    elif value not in (None, [], {}):
        text = value if isinstance(value, str) else json.dumps(value)
        yield one_line(name, _LONGEST_TEXT), one_line(text, _LONGEST_TEXT)
