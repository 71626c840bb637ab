"""A ranking as Markdown."""

import re
from collections.abc import Sequence

from hpcai500.report.ranking.columns import columns, interruptions, list_title, ranked_by
from hpcai500.report.ranking.lines import (
    PUBLISHED_HEADINGS,
    Row,
    origin_line,
    published_notes,
    published_row,
    published_title,
    scaling_line,
)
from hpcai500.report.width import width
from hpcai500.score.ranking.document import RankingDocument
from hpcai500.score.ranking.entries import RankedList
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.scaling import Sensitivity

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&~])")
_SPECIAL_START = re.compile(r"^(\d*)([#+=.)-])")


def render(document: RankingDocument, *, is_narrow: bool = False) -> str:
    """Every column; what names hold is escaped."""
    parts = [part for ranked in document.lists for part in _list_parts(ranked)]
    parts += [part for listed in document.published for part in _published_parts(listed)]
    if left_out := document.not_ranked:
        lines = "\n".join(f"- {_escaped(str(item.path))}: {_escaped(item.reason)}" for item in left_out)
        parts += [f"## Not ranked ({len(left_out)})", lines]
    parts = parts or ["Nothing to rank."]
    if origin := origin_line(document):
        parts.append(_paragraph(origin))
    return "\n\n".join(parts)


def _list_parts(ranked: RankedList) -> list[str]:
    shown = columns(ranked.by)
    headings = [*(column.heading for column in shown), "accelerator", "settings"]
    rows = [
        [*(column.text(e) for column in shown), e.accelerator, ", ".join(e.overrides) or "-"] for e in ranked.entries
    ]
    notes = [f"{e.system}: {found}" for e in ranked.entries if (found := ranked_by(e, ranked.by))]
    notes += [f"{e.system}: no rank: {e.not_placed}" for e in ranked.entries if e.not_placed]
    notes += [f"{e.system}: {found}" for e in ranked.entries if (found := interruptions(e))]
    notes += map(scaling_line, ranked.scaling)
    names = [f"{e.system} {e.world_size}" for e in ranked.entries]
    parts = [f"## {_escaped(list_title(ranked))}", _table(headings, rows)]
    parts += [_paragraph(f"{note}.") for note in notes]
    return parts + _sensitivity(ranked.sensitivity, names)


def _published_parts(listed: PublishedRankedList) -> list[str]:
    rows = [list(published_row(listed, position)) for position in range(len(listed.entries))]
    parts = [f"## {_escaped(published_title(listed))}", _table(PUBLISHED_HEADINGS, rows)]
    parts += [_paragraph(note) for note in published_notes(listed)]
    return parts + _sensitivity(listed.sensitivity, [entry.source for entry in listed.entries])


def _sensitivity(found: Sensitivity | None, names: Sequence[str]) -> list[str]:
    if found is None:
        return []
    rows = [[name, *(str(rank) for rank in ranks)] for name, ranks in zip(names, found.ranks, strict=True)]
    return [_table(["rank at n =", *(str(exponent) for exponent in found.exponents)], rows)]


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _paragraph(text: str) -> str:
    """`text` as a paragraph: neither a heading nor a list, whatever it begins with."""
    return _SPECIAL_START.sub(r"\1\\\2", _escaped(text.lstrip()))


def _table(headings: Row, rows: Sequence[Row]) -> str:
    cells = [[_escaped(cell) for cell in row] for row in (headings, *rows)]
    widths = [max([width(head) + 2, *map(width, column)]) for head, *column in zip(*cells, strict=True)]
    lines = [_table_line(row, widths) for row in cells]
    rule = "|".join(f":{'-' * (columns + 1)}" for columns in widths)
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def _table_line(row: Row, widths: Sequence[int]) -> str:
    padded = (cell + " " * (columns - width(cell)) for cell, columns in zip(row, widths, strict=True))
    return f"| {' | '.join(padded)} |"
