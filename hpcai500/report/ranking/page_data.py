"""The data that the page's script draws: figures, curves and layers, kept small."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from hpcai500.report.ranking.columns import interruptions
from hpcai500.score.ranking.curves import Curve, thinned
from hpcai500.score.ranking.entries import Entry, RankedList, RunFigures
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.scaling import ScalingSeries, Sensitivity
from hpcai500.score.record.limits import MOST_DETAILED, MOST_POINTS
from hpcai500.spec.layers import Layer
from hpcai500.text import counted

_STEPS = (*((points, True) for points in (MOST_POINTS, 64, 45, 32, 24, 16, 12)), (12, False))
"""Points per curve, and whether layers are kept: the first that fits is taken."""
_NO_CURVE = Curve(epoch_num=(), quality=(), train_flops=())

_Key = TypeVar("_Key")


def page_data(lists: Sequence[RankedList], published: Sequence[PublishedRankedList], room: int) -> str:
    """JSON in ASCII that is safe in a script element, of at most `room` bytes unless its figures need more.

    Curves are thinned until it fits, then layers are left out, then curves. `points` and `layered` state the rest.
    """
    least = _json(_data(lists, published, 0, is_layered=False))
    if len(least) > room:
        return least
    for points, is_layered in _STEPS:
        text = _json(_data(lists, published, points, is_layered=is_layered))
        if len(text) <= room:
            return text
    return least


def _json(data: dict[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Pools(NamedTuple):
    """What many entries share, each kept once and named by its place: layers, pairs of name and value, epochs."""

    layers: dict[tuple[int, ...], int]
    pairs: dict[tuple[str, ...], int]
    epochs: dict[tuple[int, ...], int]

    def layer(self, layer: tuple[tuple[str, str], ...]) -> int:
        return _place(self.layers, tuple(_place(self.pairs, pair) for pair in layer))


def _place(pool: dict[_Key, int], key: _Key) -> int:
    return pool.setdefault(key, len(pool))


def _data(
    lists: Sequence[RankedList],
    published: Sequence[PublishedRankedList],
    points: int,
    *,
    is_layered: bool,
) -> dict[str, Any]:
    pools = _Pools({}, {}, {})
    return {
        "points": points,
        "layered": is_layered,
        "detailed": MOST_DETAILED,
        "lists": [
            {
                "metric": ranked.metric,
                "target": ranked.target_quality,
                "n": ranked.penalty_exponent,
                "entries": [
                    {**_entry(entry, points, pools, is_layered), "tail": tail}
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
    def identity(one: Entry | ScalingSeries) -> tuple[str, ...]:
        return one.system, one.accelerator, one.backend, one.precision

    experiments = {(point.experiment_digest, point.world_size, point.nodes) for point in series.points}
    return {
        "name": ", ".join((*identity(series), *series.settings)),
        "kind": series.kind,
        "batch": series.batch_size,
        "of": [
            position
            for position, entry in enumerate(entries)
            if identity(entry) == identity(series)
            and (entry.experiment_digest, entry.world_size, entry.nodes) in experiments
        ],
        "points": [[p.world_size, _short(p.speed_up), _short(p.efficiency), p.nodes] for p in series.points],
    }


def _tails(entries: Sequence[Entry]) -> list[str]:
    """What follows the system's name if several entries have it: in what they differ."""
    same: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    marks = [
        (counted(e.world_size, "rank"), counted(e.nodes, "node"), e.backend, e.precision, ", ".join(e.overrides))
        for e in entries
    ]
    for entry, own in zip(entries, marks, strict=True):
        same[entry.system].append(own)
    used = {system: _distinguishing_columns(rows) for system, rows in same.items()}
    return [
        "".join(f", {own[column]}" for column in used[entry.system] if own[column])
        for entry, own in zip(entries, marks, strict=True)
    ]


def _distinguishing_columns(rows: Sequence[tuple[str, ...]]) -> list[int]:
    """The columns, first ones first, that each distinguish more of `rows` than those before them do."""
    columns: list[int] = []
    found = 1
    for column in range(len(rows[0])):
        distinct = len({tuple(row[each] for each in (*columns, column)) for row in rows})
        if distinct > found:
            columns.append(column)
            found = distinct
    return columns


def _entry(entry: Entry, points: int, pools: _Pools, is_layered: bool) -> dict[str, Any]:
    unit = 1000.0 ** int(math.log10(max(entry.flops.mean or 1.0, 1.0)) / 3)
    runs = [_run(run, points, pools, unit) for run in entry.runs]
    return {
        "name": entry.system,
        "vflops": [_short(v) for v in (entry.vflops.mean, entry.vflops.interval_low, entry.vflops.interval_high)],
        "settings": list(entry.overrides),
        "digest": entry.experiment_digest[:16],
        "diverged": entry.num_diverged,
        "interrupted": interruptions(entry),
        "unit": unit,
        "runs": {key: [run[key] for run in runs] for key in runs[0]},
        "layers": [pools.layer(layer) for layer in entry.layers] if is_layered else [],
    }  # fmt: skip


def _run(run: RunFigures, points: int, pools: _Pools, unit: float) -> dict[str, Any]:
    """One run; its rates in `unit` FLOPS, its epochs as a place in the page's table of them."""
    curve = run.curve or _NO_CURVE
    kept = thinned(len(curve.epoch_num), points)
    rates = [curve.train_flops[position] for position in kept]
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
        "epochs": _place(pools.epochs, tuple(curve.epoch_num[position] for position in kept)),
        "curve": [_short(curve.quality[position], 4) for position in kept],
        "rate": [None if rate is None else _short(rate / unit, 4) for rate in rates],
    }


def _short(value: float | None, digits: int = 5) -> float | None:
    """`value` to so many digits: enough to draw and to print."""
    if value is None:
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short  # 3, not 3.0
