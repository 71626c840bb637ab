"""A ranking as tables for a terminal."""

from collections.abc import Sequence

from hpcai500.report.ranking.columns import (
    compliance,
    half_width,
    interruptions,
    list_title,
    number,
    of_runs,
    percent,
    rank_text,
    ranked_by,
    reached,
)
from hpcai500.report.ranking.lines import (
    PUBLISHED_HEADINGS,
    Row,
    origin_line,
    published_notes,
    published_row,
    published_title,
    scaling_line,
)
from hpcai500.report.width import WIDTH, folded, indented, padded_table, width
from hpcai500.score.ranking.document import RankingDocument
from hpcai500.score.ranking.entries import Entry, RankedList
from hpcai500.score.ranking.metrics import By
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.scaling import Sensitivity
from hpcai500.score.record.reading import NotRanked
from hpcai500.text import si

HEADINGS = (
    "#", "system", "ranks", "backend", "reached", "quality", "VFLOPS", "±", "FLOPS", "TTQ s", "epochs", "CV"
)  # fmt: skip
LEGEND = (
    "#: rank; a range if the runs cannot decide the order at 95 % confidence. reached: runs that reached\n"
    "the target / all runs. ±: half the 95 % interval of the mean VFLOPS. TTQ: time to quality.\n"
    "CV: standard deviation / mean of epochs to quality. A mean is over the runs that have the figure."
)
_WIDEST_NAME, _NARROWEST_NAME = 20, 14
_SPARED = ("CV", "FLOPS", "epochs", "framework")
"""Columns left out, in this order, if names would get too little of a terminal's 100 columns."""


def render(document: RankingDocument, *, is_narrow: bool = False) -> str:
    """The ranking as text. With `is_narrow`, long names are broken into lines to keep tables within 100 columns."""
    parts = [_list_text(ranked, is_narrow) for ranked in document.lists]
    parts += [_published_text(listed, is_narrow) for listed in document.published]
    if document.lists:
        parts.append(LEGEND)
    parts += not_ranked_parts(document.not_ranked)
    parts = parts or ["Nothing to rank."]
    if origin := origin_line(document):
        parts.append("\n".join(indented([origin], is_narrow, first="")))
    return "\n\n".join(parts)


def not_ranked_parts(left_out: Sequence[NotRanked]) -> list[str]:
    lines = [f"  {item.path}: {item.reason}" for item in left_out]
    return ["\n".join([f"Not ranked ({len(left_out)}):", *lines])] if left_out else []


def _published_text(listed: PublishedRankedList, is_narrow: bool) -> str:
    rows = [published_row(listed, position) for position in range(len(listed.entries))]
    names = [entry.source for entry in listed.entries]
    return "\n".join([
        title_lines(published_title(listed), is_narrow),
        _table(PUBLISHED_HEADINGS, rows, is_narrow),
        *indented(published_notes(listed), is_narrow),
        *_sensitivity(listed.sensitivity, names, is_narrow),
    ])  # fmt: skip


def _list_text(ranked: RankedList, is_narrow: bool) -> str:
    table = _table(HEADINGS, [_entry_row(entry) for entry in ranked.entries], is_narrow)
    names = [f"{entry.system} {entry.world_size}" for entry in ranked.entries]
    return "\n".join([
        title_lines(list_title(ranked), is_narrow),
        table,
        *indented((_entry_note(entry, ranked.by) for entry in ranked.entries), is_narrow),
        *indented(map(scaling_line, ranked.scaling), is_narrow),
        *_sensitivity(ranked.sensitivity, names, is_narrow),
    ])  # fmt: skip


def title_lines(text: str, is_narrow: bool) -> str:
    return "\n".join(folded(text, WIDTH)) if is_narrow else text


def _entry_row(entry: Entry) -> Row:
    return (
        rank_text(entry),
        entry.system,
        str(entry.world_size),
        f"{entry.backend} {entry.precision}",
        reached(entry),
        number(entry.quality.mean),
        si(entry.vflops.mean),
        half_width(entry.vflops),
        si(entry.flops.mean),
        number(entry.time_to_quality_sec.mean),
        number(entry.epochs_to_quality.mean),
        percent(entry.epochs_to_quality.coefficient_of_variation, 1),
    )


def _entry_note(entry: Entry, by: By = "vflops") -> str:
    """What the table has no room for."""
    nodes = f" on {entry.nodes} nodes" if entry.nodes > 1 else ""
    parts = [
        f"{rank_text(entry)} {entry.system}: {entry.world_size} x {entry.accelerator}{nodes}, "
        f"{si(entry.vflops_per_accelerator)} VFLOPS each"
    ]
    parts += [found for found in [ranked_by(entry, by)] if found]
    if entry.vflops_per_watt.mean is not None and by != "vflops_per_watt":
        few = of_runs(entry, entry.vflops_per_watt)
        parts.append(f"{si(entry.vflops_per_watt.mean)} VFLOPS/W{f' ({few})' if few else ''}")
    if entry.not_placed:
        parts.append(f"no rank: {entry.not_placed}")
    if entry.num_breaches is not None or entry.unverified:
        parts.append(compliance(entry))
    if entry.num_diverged:
        parts.append(f"{entry.num_diverged} diverged")
    parts += [found for found in [interruptions(entry)] if found]
    return "; ".join([*parts, *([", ".join(entry.overrides)] if entry.overrides else [])])


def _sensitivity(found: Sensitivity | None, names: Sequence[str], is_narrow: bool) -> list[str]:
    if found is None:
        return []
    width = max((len(str(rank)) for ranks in found.ranks for rank in ranks), default=1)
    step = (WIDTH - _WIDEST_NAME) // (max(width, 2) + 2) if is_narrow else len(found.exponents)
    tables = []
    for start in range(0, len(found.exponents), step):
        part = slice(start, start + step)
        headings = ("rank at n =", *(str(exponent) for exponent in found.exponents[part]))
        rows = [(name, *(str(rank) for rank in ranks[part])) for name, ranks in zip(names, found.ranks, strict=True)]
        tables += ["", _table(headings, rows, is_narrow, name_column=0)]
    return tables


def _table(headings: Row, rows: Sequence[Row], is_narrow: bool, name_column: int = 1) -> str:
    """A table. With `is_narrow`, names get what other columns leave of 100; if too little, columns are left out."""
    if not is_narrow:
        return padded_table(headings, rows)
    widths = [max(map(width, column)) for column in zip(headings, *rows, strict=True)]
    needed = min(_NARROWEST_NAME, widths[name_column])
    kept = list(range(len(headings)))

    def room() -> int:
        return WIDTH - sum(widths[column] + 2 for column in kept if column != name_column)

    spared = [heading for heading in _SPARED if heading in headings]
    left_out = []
    while room() < needed and spared:
        left_out.append(spared.pop(0))
        kept.remove(headings.index(left_out[-1]))
    name_width = max(needed, min(_WIDEST_NAME, room()))
    table = padded_table(
        [headings[column] for column in kept],
        [[row[column] for column in kept] for row in rows],
        {kept.index(name_column): name_width},
    )
    return f"{table}\n  no room for {', '.join(left_out)}: --format md has every column" if left_out else table
