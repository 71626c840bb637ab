"""Text by terminal columns: a Chinese character takes two, an accent none."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

WIDTH = 100
"""Columns of a terminal that text keeps to."""


def width(text: str) -> int:
    """Columns of a terminal (Unicode, UAX 11: wide and fullwidth characters take two)."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def folded(text: str, most: int, *, first: str = "", others: str = "") -> list[str]:
    """`text` in lines of at most `most` columns, broken at spaces and after hyphens, and within a longer word.

    The first line begins with `first`, the others with `others`; both count.
    """
    lines, line = [], first
    start = first
    for piece in re.findall(r"\s+|[^\s-]*-+|[^\s-]+", text):
        if width(line + piece) <= most:
            line += piece
            continue
        if line != start:
            lines.append(line.rstrip())
            line = start = others
        if piece.isspace():
            continue
        while width(line + piece) > most:
            head = _head(piece, most - width(line))
            lines.append(line + head)
            line, piece = others, piece[len(head) :]
            start = others
        line += piece
    return [*lines, line.rstrip()] if line != start or not lines else lines


def _head(text: str, most: int) -> str:
    """The letters that fit into `most` columns, at least one."""
    taken = 0
    for position, letter in enumerate(text):
        taken += _columns(letter)
        if taken > most and position:
            return text[:position]
    return text


def indented(lines: Iterable[str], is_narrow: bool = False, *, first: str = "  ") -> list[str]:
    """`lines` behind `first`; with `is_narrow`, folded to 100 columns and further indented."""
    if is_narrow:
        return ["\n".join(folded(line, WIDTH, first=first, others=f"{first}  ")) for line in lines]
    return [f"{first}{line}" for line in lines]


def padded_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    most: dict[int, int] | None = None,
    *,
    is_right: bool = False,
) -> str:
    """Columns under a rule, aligned left or right; `most` is how many terminal columns a table's column may take."""
    limits = most or {}
    cells = [
        [folded(cell, limits[column]) if column in limits else [cell] for column, cell in enumerate(row)]
        for row in (headings, *rows)
    ]
    widths = [max(width(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    table = [_padded(row, widths, is_right=is_right) for row in cells]
    return "\n".join([table[0], "  ".join("-" * columns for columns in widths), *table[1:]])


def _padded(row: Sequence[Sequence[str]], widths: Sequence[int], *, is_right: bool) -> str:
    height = max(len(cell) for cell in row)
    lines = []
    for number in range(height):
        texts = [cell[number] if number < len(cell) else "" for cell in row]
        gaps = [" " * (columns - width(text)) for text, columns in zip(texts, widths, strict=True)]
        lines.append("  ".join(gap + text if is_right else text + gap for text, gap in zip(texts, gaps, strict=True)))
    return "\n".join(line.rstrip() for line in lines)
