"""What the page's script draws: figures, curves and layers, kept small."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hpcai500.errors import HpcAi500Error
from hpcai500.files import read_json
from hpcai500.report.ranking.columns import interruptions
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.ranking import Entry, RankedList, RunFigures
from hpcai500.score.ranking.scaling import ScalingSeries, Sensitivity
from hpcai500.score.record.reading import newest_result
from hpcai500.score.record.result import Result
from hpcai500.spec.layers import LAYER_OF_TABLE, Layer
from hpcai500.text import counted

_MOST_DETAILED = 200
_STEPS = (*((points, True) for points in (90, 64, 45, 32, 24, 16, 12)), (12, False))
"""Points a curve, and whether layers are kept: the first that fits is taken."""
_LONGEST_TEXT = 160
_MOST_VALUES = 40

_Key = TypeVar("_Key")
Layers = list[list[list[str]]]


def page_data(lists: Sequence[RankedList], published: Sequence[PublishedRankedList], room: int) -> str:
    """JSON in ASCII that may stand in a script element, of at most `room` bytes where its figures alone leave that.

    Curves are thinned until it fits, then layers are left out, then curves; `points` and `layered` say how far that
    went. Beyond the first 200 entries there are neither.
    """
    least = _json(_data(lists, published, {}, 0, is_layered=False))
    if len(least) > room:
        return least
    details = _details(lists)
    for points, is_layered in _STEPS:
        text = _json(_data(lists, published, details, points, is_layered=is_layered))
        if len(text) <= room:
            return text
    return least


def _json(data: dict[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Pools(NamedTuple):
    """What many entries share, each held once and named by its place: most layers, and most of any two layers."""

    layers: dict[tuple[int, ...], int]
    pairs: dict[tuple[str, ...], int]
    epochs: dict[tuple[int, ...], int]

    def layer(self, layer: list[list[str]]) -> int:
        return _place(self.layers, tuple(_place(self.pairs, tuple(pair)) for pair in layer))


def _place(pool: dict[_Key, int], key: _Key) -> int:
    return pool.setdefault(key, len(pool))


class _Detail:
    """What only the files of an entry's runs hold."""

    def __init__(self, entry: Entry) -> None:
        self.results = [_result(run.path.on_disk) for run in entry.runs]
        self.layers = _layers(entry.runs[0].path.on_disk)


def _details(lists: Sequence[RankedList]) -> dict[int, _Detail]:
    entries = [entry for ranked in lists for entry in ranked.entries]
    return {id(entry): _Detail(entry) for entry in entries[:_MOST_DETAILED]}


def _result(folder: Path) -> Result | None:
    try:
        return newest_result(folder / "result.json")
    except (HpcAi500Error, OSError):  # gone since it was ranked: a run without curves
        return None


def _data(
    lists: Sequence[RankedList],
    published: Sequence[PublishedRankedList],
    details: Mapping[int, _Detail],
    points: int,
    *,
    is_layered: bool,
) -> dict[str, Any]:
    pools = _Pools({}, {}, {})
    return {
        "points": points,
        "layered": is_layered,
        "detailed": _MOST_DETAILED,
        "lists": [
            {
                "metric": ranked.metric,
                "target": ranked.target_quality,
                "n": ranked.penalty_exponent,
                "entries": [
                    {**_entry(entry, details.get(id(entry)), points, pools, is_layered), "tail": tail}
                    for entry, tail in zip(ranked.entries, _tails(ranked.entries), strict=True)
                ],
                "scaling": [_scaling(series, ranked.entries) for series in ranked.scaling],
                "moves": _moves(ranked.sensitivity),
            }
            for ranked in lists
        ],
        "published": [
            {
                "n": listed.penalty_exponent,
                "entries": [
                    {
                        "name": entry.source,
                        "tail": "",
                        "vflops": [entry.vflops, None, None],
                        "published": entry.published_vflops,
                    }
                    for entry in listed.entries
                ],
                "moves": _moves(listed.sensitivity),
            }
            for listed in published
        ],
        "layers": list(pools.layers),
        "pairs": list(pools.pairs),
        "epochs": list(pools.epochs),
        "titles": [layer.title for layer in Layer],
    }


def _moves(found: Sensitivity | None) -> dict[str, Any] | None:
    return {"n": found.exponents, "ranks": found.ranks} if found else None


def _scaling(series: ScalingSeries, entries: Sequence[Entry]) -> dict[str, Any]:
    def of(one: Entry | ScalingSeries) -> tuple[str, ...]:
        return one.system, one.accelerator, one.backend, one.precision

    experiments = {(point.experiment_digest, point.world_size, point.nodes) for point in series.points}
    return {
        "name": ", ".join((*of(series), *series.settings)),
        "kind": series.kind,
        "batch": series.batch_size,
        "of": [
            position
            for position, entry in enumerate(entries)
            if of(entry) == of(series) and (entry.experiment_digest, entry.world_size, entry.nodes) in experiments
        ],
        "points": [[p.world_size, _short(p.speed_up), _short(p.efficiency), p.nodes] for p in series.points],
    }


def _tails(entries: Sequence[Entry]) -> list[str]:
    """What to say behind the system's name where several entries have it: in what they differ."""
    same: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    marks = [
        (counted(e.world_size, "rank"), counted(e.nodes, "node"), e.backend, e.precision, ", ".join(e.overrides))
        for e in entries
    ]
    for entry, own in zip(entries, marks, strict=True):
        same[entry.system].append(own)
    used = {system: _telling(rows) for system, rows in same.items()}
    return [
        "".join(f", {own[column]}" for column in used[entry.system] if own[column])
        for entry, own in zip(entries, marks, strict=True)
    ]


def _telling(rows: Sequence[tuple[str, ...]]) -> list[int]:
    """The columns, first ones first, that each tell more of `rows` apart than those before them do."""
    columns: list[int] = []
    found = 1
    for column in range(len(rows[0])):
        distinct = len({tuple(row[each] for each in (*columns, column)) for row in rows})
        if distinct > found:
            columns.append(column)
            found = distinct
    return columns


def _entry(entry: Entry, detail: _Detail | None, points: int, pools: _Pools, is_layered: bool) -> dict[str, Any]:
    results = detail.results if detail else [None] * len(entry.runs)
    unit = 1000.0 ** int(math.log10(max(entry.flops.mean or 1.0, 1.0)) / 3)
    runs = [_run(run, result, points, pools, unit) for run, result in zip(entry.runs, results, strict=True)]
    return {
        "name": entry.system,
        "vflops": [_short(v) for v in (entry.vflops.mean, entry.vflops.interval_low, entry.vflops.interval_high)],
        "settings": list(entry.overrides),
        "digest": entry.experiment_digest[:16],
        "diverged": entry.num_diverged,
        "interrupted": interruptions(entry),
        "unit": unit,
        "runs": {key: [run[key] for run in runs] for key in runs[0]},
        "layers": [pools.layer(layer) for layer in detail.layers] if detail and is_layered else [],
    }  # fmt: skip


def _run(run: RunFigures, result: Result | None, points: int, pools: _Pools, unit: float) -> dict[str, Any]:
    """One run; its rates in `unit` FLOPS, its epochs as a place in the page's table of them."""
    epochs = result.epochs if result else ()
    kept = [epochs[position] for position in _thinned(len(epochs), points)]
    return {
        "seed": run.seed,
        "quality": _short(run.achieved_quality),
        "vflops": _short(run.vflops),
        "flops": _short(run.flops),
        "sec": [_short(value) for value in (run.train_sec, run.eval_sec, run.total_sec, run.init_sec)],
        "ttq": _short(run.time_to_quality_sec),
        "etq": run.epochs_to_quality,
        "joules": _short(run.energy_joules),
        "stops": [run.num_interruptions, _short(run.interrupted_sec)],
        "epochs": _place(pools.epochs, tuple(epoch.epoch_num for epoch in kept)),
        "curve": [_short(epoch.quality, 4) for epoch in kept],
        "rate": [
            _short(epoch.flops / epoch.train_sec / unit, 4) if epoch.train_sec > 1e-9 else None for epoch in kept
        ],
    }


def _thinned(count: int, points: int) -> list[int]:
    """Positions of at most `points` of `count`, evenly, the first and the last among them."""
    if count <= points:
        return list(range(count))
    return sorted({round(step * (count - 1) / (points - 1)) for step in range(points)}) if points > 1 else []


def _short(value: float | None, digits: int = 5) -> float | None:
    """`value` to so many digits: enough to draw and to print."""
    if value is None:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short  # 3, not 3.0


def _layers(folder: Path) -> Layers:
    """The nine layers, each as names and values: 1 to 6 of the commonest kind of node, 7 to 9 of run.json."""
    found: dict[int, list[list[str]]] = {layer.value: [] for layer in Layer}
    nodes = _record(folder / "system.json").get("nodes")
    layers = nodes[0].get("layers") if isinstance(nodes, list) and nodes and isinstance(nodes[0], dict) else None
    for number, values in (layers if isinstance(layers, dict) else {}).items():
        if number in {"1", "2", "3", "4", "5", "6"}:
            found[int(number)] = _flat(values)
    run = _record(folder / "run.json")
    settings = run.get("settings")
    for table, values in (settings if isinstance(settings, dict) else {}).items():
        layer = LAYER_OF_TABLE.get(table)
        if layer and layer.value >= Layer.WORKLOAD_IMPLEMENTATION:
            found[layer.value] += _flat({table: values})
    if isinstance(run.get("workload"), dict):
        identity = {key: value for key, value in run["workload"].items() if key in ("name", "model", "code_digest")}
        found[Layer.WORKLOAD_IMPLEMENTATION.value] = _flat(identity) + found[Layer.WORKLOAD_IMPLEMENTATION.value]
    return [found[layer.value][:_MOST_VALUES] for layer in Layer]


def _record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (HpcAi500Error, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _flat(value: Any, name: str = "") -> list[list[str]]:
    """Nested tables as dotted names and texts."""
    return [[key, text] for key, text in _pairs(value, name)]


def _pairs(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and name.count(".") < 4:
        for key, inner in value.items():
            yield from _pairs(inner, f"{name}.{key}" if name else str(key))
    elif value not in (None, [], {}):
        text = value if isinstance(value, str) else json.dumps(value)
        yield name[:_LONGEST_TEXT], text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
