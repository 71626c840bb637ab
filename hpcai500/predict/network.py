"""The network of a prediction: given as ranges, or fitted to measured all-reduces."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcai500.errors import InputError
from hpcai500.files import read_json
from hpcai500.predict.communication import Link, Network
from hpcai500.predict.measured import upgraded
from hpcai500.score.record.reading import MALFORMED
from hpcai500.spec.models import Frozen

UNSURE = 1.25
"""Assumed uncertainty factor, either way, of a figure given without a range."""

_LEAST, _MOST = 1e-9, 1e9
"""Limits of given figures (GB/s, us) and of all-reduce seconds: beyond any machine, and without overflow."""


class NetworkBand(Frozen):
    """The likely network, and its best and worst case."""

    fast: Network
    likely: Network
    slow: Network
    between_source: str
    """Source of the link between nodes."""
    within_source: str
    """Source of the link within a node."""
    fitted_ranks: tuple[int, ...] = ()
    """Ranks of the measured sizes that a link was fitted to."""


class LinkBand(NamedTuple):
    fast: Link
    likely: Link
    slow: Link


class Range(NamedTuple):
    low: float
    likely: float
    high: float


def band(
    between: LinkBand | None, within: LinkBand | None, sources: tuple[str, str], fitted: Sequence[int] = ()
) -> NetworkBand:
    """Networks from bands of their links; None for an unknown link. `sources`: between nodes, within a node."""
    pairs = zip(between or (None, None, None), within or (None, None, None), strict=True)
    fast, likely, slow = (Network(between=b, within=w) for b, w in pairs)
    return NetworkBand(
        fast=fast, likely=likely, slow=slow, between_source=sources[0], within_source=sources[1],
        fitted_ranks=tuple(fitted),
    )  # fmt: skip


def link_band(latency_us: Range, bandwidth_gb_s: Range) -> LinkBand:
    def link(delay: float, speed: float) -> Link:
        return Link(latency_sec=delay * 1e-6, bytes_per_sec=speed * 1e9)

    return LinkBand(
        fast=link(latency_us.low, bandwidth_gb_s.high),
        likely=link(latency_us.likely, bandwidth_gb_s.likely),
        slow=link(latency_us.high, bandwidth_gb_s.low),
    )


def parse_range(text: str, option: str) -> Range:
    """`10` means 10 with a factor of 1.25 either way; `8..12` means 8 to 12, likely their geometric mean.

    Raises:
        InputError: unless both are numbers from 1e-9 to 1e9, the lower one first.
    """
    try:
        parts = [float(part) for part in text.split("..")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or not _LEAST <= parts[0] <= parts[-1] <= _MOST:
        raise InputError(
            f"{option} {text}: not a number from {_LEAST:g} to {_MOST:g}, nor a range of two",
            "write e.g. 12.5, or 10..12.5",
        )
    low, high = parts if len(parts) == 2 else (parts[0] / UNSURE, parts[0] * UNSURE)
    return Range(low, math.sqrt(low * high), high)


def fit(
    points: Sequence[tuple[float, float]], num_ranks: int, quartiles: Sequence[tuple[float, float]] = ()
) -> LinkBand:
    """Latency and bandwidth of a ring of `num_ranks`, fitted to measured points (bytes, seconds).

    Least squares of the relative errors, neither figure below zero. The band covers the largest error, also for
    `quartiles`, since a fit through only two points has no error.

    Raises:
        InputError: for fewer than two sizes, or times that do not grow with size.
    """
    if len({size for size, _ in points}) < 2:
        raise InputError("latency and bandwidth need all-reduces of at least two sizes", "measure more sizes")
    sizes, seconds = np.array(points, dtype=float).T
    terms = np.stack([np.full_like(sizes, 2 * (num_ranks - 1)), 2 * (num_ranks - 1) / num_ranks * sizes], axis=1)
    weighted = terms / seconds[:, None]
    (latency, per_byte), *_ = np.linalg.lstsq(weighted, np.ones_like(seconds), rcond=None)
    if latency < 0:
        latency, per_byte = 0.0, float(np.median(seconds / terms[:, 1]))
    if per_byte <= 0:
        raise InputError("the measured all-reduces do not take longer for more bytes", "measure larger sizes")
    likely = Link(latency_sec=float(latency), bytes_per_sec=1 / float(per_byte))
    all_sizes, all_seconds = np.array([*points, *quartiles], dtype=float).T
    predicted = 2 * (num_ranks - 1) * (latency + per_byte * all_sizes / num_ranks)
    factor = float(np.exp(np.abs(np.log(predicted / all_seconds)).max()))
    return LinkBand(fast=likely.scaled(factor), likely=likely, slow=likely.scaled(1 / factor))


def read_measured(path: Path) -> tuple[LinkBand, int]:
    """The link that `hpcai500 micro --json` measured, and the number of nodes.

    Raises:
        InputError: for a file without all-reduces over at least two ranks, or with impossible ones.
    """
    record = read_json(path)
    hint = "write it with `hpcai500 micro --only collectives --json` on the ranks to predict from"
    try:
        nodes, num_ranks = int(record["nodes"]), int(record["num_ranks"])
        timed = [sample for sample in _samples(upgraded(record)) if _is_time_of_all_reduce(sample)]
        points, lower, upper = (
            [(float(sample["size_bytes"]), float(sample[field])) for sample in timed]
            for field in ("value", "lower_quartile", "upper_quartile")
        )
    except MALFORMED as error:
        raise InputError(f"{path}: not what `hpcai500 micro --json` writes ({error!r})", hint) from error
    if num_ranks < 2 or not points:
        raise InputError(f"{path}: no all-reduce over two ranks or more", hint)
    for size, sec in (*points, *lower, *upper):
        if not (1 <= size < _MOST**2 and _LEAST <= sec <= _MOST):
            raise InputError(f"{path}: an all-reduce of {size:g} bytes in {sec:g} s", hint)
    if not 1 <= nodes <= num_ranks <= _MOST:
        raise InputError(f"{path}: nodes and num_ranks are out of range", hint)
    return fit(points, num_ranks, [*lower, *upper]), nodes


def _is_time_of_all_reduce(sample: dict[str, Any]) -> bool:
    return (sample.get("part"), sample.get("family"), sample.get("unit")) == ("collectives", "all_reduce", "s")


def _samples(record: Any) -> list[dict[str, Any]]:
    found = record["samples"]
    if not isinstance(found, list):
        raise TypeError("samples is not a list")
    return found
