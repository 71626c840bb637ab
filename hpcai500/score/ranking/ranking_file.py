"""Read a ranking that `hpcai500 rank --json` wrote, or that somebody else wrote or changed."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcai500.errors import InputError
from hpcai500.files import read_plain
from hpcai500.score.ranking.consistency import entry_faults, place_faults, published_faults, run_faults, series_faults
from hpcai500.score.ranking.document import RankingDocument
from hpcai500.score.ranking.entries import Entry, RankedList
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.scaling import ScalingSeries, Sensitivity
from hpcai500.score.record.limits import (
    LONGEST_SHOWN,
    MOST_EXPONENT,
    MOST_FIGURE,
    MOST_RANKING_BYTES,
    MOST_RANKS,
    MOST_VFLOPS,
)
from hpcai500.score.record.run_files import RUN_FILES
from hpcai500.score.record.source import ARCHIVE_SUFFIX
from hpcai500.spec.layers import Layer
from hpcai500.spec.levels import Level
from hpcai500.spec.models import parse

_SHA256 = re.compile(r"[0-9a-f]{64}")
_START_BYTES = 64
_MAY_BE_NEGATIVE = {"interval_low", "bootstrap_low"}
_HINT = "`hpcai500 rank RESULTS --json` writes one"


def ranking_in(paths: Sequence[Path]) -> RankingDocument | None:
    """The ranking in the one file among `paths` that holds one; None if they are results.

    A ranking is known by its content. A file with the name of a result, a published list or an archive may hold
    something else. Any other file must be a ranking or a result.

    Raises:
        InputError: for a file that holds neither, and for a ranking together with other paths.
    """
    documents = [document for path in paths if path.is_file() and (document := _read(path))]
    if documents and len(paths) > 1:
        raise InputError("a ranking file among other paths", "rank the results, or name the ranking file only")
    return documents[0] if documents else None


def _is_named_otherwise(path: Path) -> bool:
    """Whether its name is that of a run's file, a published list or an archive."""
    return path.name in RUN_FILES or path.suffix.lower() in (".csv", ARCHIVE_SUFFIX)


def _may_be_ranking(path: Path) -> bool:
    """Whether a file that is named otherwise starts like one object of JSON, and has lists."""
    try:
        with path.open("rb") as file:
            if file.read(_START_BYTES).lstrip()[:1] != b"{":
                return False
        return b'"lists"' in read_plain(path, MOST_RANKING_BYTES)
    except (InputError, OSError):
        return False  # who reads it as what it is named has the better message


def _read(path: Path) -> RankingDocument | None:
    """The ranking in `path`; None if it holds a run's result, by whatever name, or is named as something else.

    Raises:
        InputError: for anything else.
    """
    if _is_named_otherwise(path) and not _may_be_ranking(path):
        return None
    try:
        content = read_plain(path, MOST_RANKING_BYTES)
    except OSError as error:
        raise InputError(str(error.strerror), at=path) from error
    try:
        record = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"neither a ranking nor a result: not valid JSON ({error})", _HINT, at=path) from error
    if isinstance(record, dict) and "identity" in record and "lists" not in record:
        return None
    if not (isinstance(record, dict) and "lists" in record):
        raise InputError("neither a ranking nor a result", _HINT, at=path)
    first = record.setdefault("ranking_file_sha256", None)
    fault = next(_unusable_values(record), None)
    if isinstance(first, str) and not _SHA256.fullmatch(first):
        fault = fault or "ranking_file_sha256: not a SHA-256 in hex"
    document = None if fault else parse(RankingDocument, record, path)
    fault = fault or next(_contradictions(document), None)
    if fault or document is None:
        raise InputError(f"not a ranking: {fault}", _HINT, at=path)
    return document.model_copy(update={"ranking_file_sha256": first or hashlib.sha256(content).hexdigest()})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:40]!r} appears twice")
    return record


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _unusable_values(value: Any, name: str = "") -> Iterator[str]:
    """Numbers that no figure has, and texts that no terminal or page should print."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unusable_values(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _unusable_values(inner, f"{name}.{position}")
    elif isinstance(value, str):
        if len(value) > LONGEST_SHOWN or not value.isprintable():
            yield f"{_shown(name)}: longer than {LONGEST_SHOWN:,} characters, or not printable"
    elif isinstance(value, int | float):
        if not abs(value) < MOST_VFLOPS:
            yield f"{_shown(name)}: out of range"
        elif value < 0 and name.rpartition(".")[2] not in _MAY_BE_NEGATIVE:
            yield f"{_shown(name)}: {value:g} is negative"


def _shown(name: str) -> str:
    return repr(name[:100])[1:-1]


def _contradictions(document: RankingDocument | None) -> Iterator[str]:
    """Values that contradict each other, or that no format could show."""
    if document is None:
        return
    named = Counter(
        (ranked.workload, ranked.title, ranked.problem, ranked.level, ranked.metric, ranked.target_quality,
         ranked.penalty_exponent) for ranked in document.lists
    )  # fmt: skip
    if named and max(named.values()) > 1:
        yield "lists: one list twice, with equal workload, problem, level, target_quality and penalty_exponent"
    for number, ranked in enumerate(document.lists):
        if sum(entry.num_diverged for entry in ranked.entries) > len(document.not_ranked):
            yield f"lists.{number}: num_diverged: more runs than not_ranked has"
        yield from (f"lists.{number}: {fault}" for fault in _list_faults(ranked))
    for number, listed in enumerate(document.published):
        yield from (f"published.{number}: {fault}" for fault in _published_faults(listed))


def _list_faults(ranked: RankedList) -> Iterator[str]:
    if ranked.level not in set(Level):
        yield f"level: {ranked.level[:40]!r} is none of {', '.join(Level)}"
    if not 0 < ranked.target_quality <= 1 or not 1 <= ranked.penalty_exponent <= MOST_EXPONENT:
        yield f"target_quality must lie between 0 and 1, penalty_exponent from 1 to {MOST_EXPONENT}"
    for number, entry in enumerate(ranked.entries):
        yield from (f"entries.{number}: {fault}" for fault in _entry_faults(entry, ranked))
    yield from _sensitivity_faults(ranked.sensitivity, len(ranked.entries))
    for number, series in enumerate(ranked.scaling):
        yield from (f"scaling.{number}: {fault}" for fault in _series_faults(series))
        yield from (f"scaling.{number}: {fault}" for fault in series_faults(series, ranked))
    yield from place_faults(ranked)


def _entry_faults(entry: Entry, ranked: RankedList) -> Iterator[str]:
    if not 1 <= entry.nodes <= MOST_RANKS or not 1 <= entry.world_size <= MOST_RANKS:
        yield f"nodes and world_size must lie between 1 and {MOST_RANKS:,}"
    if not entry.runs or entry.seeds != tuple(run.seed for run in entry.runs):
        yield "runs must not be empty, and seeds must be theirs"
    if len(set(entry.seeds)) < len(entry.seeds):
        yield "seeds: one appears twice"
    ranks = (entry.rank, entry.rank_low, entry.rank_high)
    if None in ranks and (set(ranks) != {None} or entry.not_placed is None):
        yield "rank, rank_low and rank_high must be given together, or not_placed"
    if len(entry.layers) not in (0, len(Layer)):
        yield f"layers must be none, or {len(Layer)}"
    for number, run in enumerate(entry.runs):
        curve = run.curve
        if curve and len({len(curve.epoch_num), len(curve.quality), len(curve.train_flops)}) > 1:
            yield "the columns of a curve must be equally long"
        yield from _figure_faults(run.flops, run.achieved_quality, ranked.target_quality)
        yield from (f"runs.{number}: {fault}" for fault in run_faults(run, ranked))
    yield from entry_faults(entry)


def _figure_faults(flops: float, achieved_quality: float, target_quality: float) -> Iterator[str]:
    if not 0 < flops < MOST_FIGURE or not 0 <= achieved_quality <= 1:
        yield f"flops must lie between 0 and {MOST_FIGURE:g}, achieved_quality between 0 and 1"
    elif achieved_quality > target_quality:
        ratio = achieved_quality / target_quality
        if math.log10(flops) + MOST_EXPONENT * math.log10(ratio) > math.log10(MOST_VFLOPS):
            yield "target_quality is so low that VFLOPS overflow"


def _sensitivity_faults(found: Sensitivity | None, num_entries: int) -> Iterator[str]:
    if found is None:
        return
    if not found.exponents or not all(1 <= n <= MOST_EXPONENT for n in found.exponents):
        yield f"sensitivity.exponents must lie between 1 and {MOST_EXPONENT}"
    if len(found.ranks) != num_entries or any(len(row) != len(found.exponents) for row in found.ranks):
        yield "sensitivity.ranks must have one row per entry, and one number per exponent"


def _series_faults(series: ScalingSeries) -> Iterator[str]:
    if not series.points or min(min(point.world_size, point.nodes) for point in series.points) < 1:
        yield "points must not be empty, and nodes and world_size must be above 0"


def _published_faults(listed: PublishedRankedList) -> Iterator[str]:
    if not 0 < listed.target_quality <= 1 or not 1 <= listed.penalty_exponent <= MOST_EXPONENT:
        yield f"target_quality must lie between 0 and 1, penalty_exponent from 1 to {MOST_EXPONENT}"
    if listed.level not in set(Level):
        yield f"level: {listed.level[:40]!r} is none of {', '.join(Level)}"
    for number, entry in enumerate(listed.entries):
        if entry.accelerator_count < 1 or not entry.published_vflops or not entry.time_sec:
            yield f"entries.{number}: accelerator_count, published_vflops and time_sec must be above 0"
        faults = _figure_faults(entry.flops, entry.achieved_quality, listed.target_quality)
        yield from (f"entries.{number}: {fault}" for fault in faults)
    yield from _sensitivity_faults(listed.sensitivity, len(listed.entries))
    yield from published_faults(listed)
