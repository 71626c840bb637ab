"""A small log-log plot as SVG: lines, points and bands, readable in light and dark, without scripts."""

import math
from collections.abc import Sequence
from html import escape
from itertools import accumulate
from typing import NamedTuple

from hpcai500.text import si

WIDTH, HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 20, 52, 56
_COLOURS = ("#2563eb", "#d9480f", "#2b8a3e", "#9c36b5", "#868e96", "#0b7285", "#e64980", "#7c5c1e")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#212529}.small{font-size:12px}.title{font-size:15px;font-weight:600}"
    ".frame{fill:none;stroke:#868e96}.grid{stroke:#ced4da;stroke-width:.6}.paper{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e9ecef}.paper{fill:#16191d}.grid{stroke:#373b40}}"
)

Pair = tuple[float, float]


class Line(NamedTuple):
    name: str
    points: Sequence[Pair]
    """(x, y), both above zero."""
    band: Sequence[Pair] = ()
    """(low, high) at each point; empty for none."""
    is_dashed: bool = False
    has_markers: bool = True
    has_line: bool = True
    shares_colour: bool = False
    """Whether it has the colour of the line before it."""


class _Axis(NamedTuple):
    """Logarithmic, from `low` to `high` in the data, from `start` to `end` on paper."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * math.log(value / self.low) / math.log(self.high / self.low)


def log_log(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], *, note: str = "", legend_above: bool = False
) -> str:
    """The plot as one SVG document; `legend_above` leaves room for the legend over all lines.

    Raises:
        ValueError: without a point, or for one that has no logarithm.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [y for line in lines for pair in line.band for y in pair]
    if not xs or min(*xs, *ys) <= 0 or not all(map(math.isfinite, (*xs, *ys))):
        raise ValueError("a logarithmic plot takes finite points above zero, and at least one")
    x = _Axis(*_widened(xs), _LEFT, WIDTH - _RIGHT)
    low, high = _widened(ys)
    if legend_above:
        share = min(0.5, (26 + 18 * len(lines)) / (HEIGHT - _BOTTOM - _TOP))
        high *= (high / low) ** (share / (1 - share))
    y = _Axis(low, high, HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{_LEFT}" y="22">{escape(title)}</text>',
        f'<text class="small" x="{_LEFT}" y="41">{escape(note)}</text>',
        *_grid(x, y),
        f'<text x="{(x.start + x.end) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(18 {(y.start + y.end) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for line, colour in zip(lines, _colours(lines), strict=True):
        parts += _drawn(line, colour, x, y)
    parts += _legend(lines)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _widened(values: Sequence[float]) -> Pair:
    low, high = min(values), max(values)
    return (low / 1.6, high * 1.6) if high / low > 1.01 else (low / 3, high * 3)


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = [f'<rect class="frame" x="{x.start}" y="{y.end}" width="{x.end - x.start}" height="{y.start - y.end}"/>']
    for value in ticks(x.low, x.high):
        at = x.at(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.end}"/>')
        parts.append(f'<text class="small" x="{at:.1f}" y="{y.start + 18}" text-anchor="middle">{si(value)}</text>')
    for value in ticks(y.low, y.high):
        at = y.at(value)
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="small" x="{x.start - 8}" y="{at + 4:.1f}" text-anchor="end">{si(value)}</text>')
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`: 1, 2 and 5 of each decade, or only the decades if they are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    every = math.ceil(len(decades) / 8)
    values = (digit * 10.0**decade for decade in decades if decade % every == 0 for digit in digits)
    return [value for value in values if low <= value <= high]


def _colours(lines: Sequence[Line]) -> list[str]:
    own = accumulate(not line.shares_colour for line in lines)
    return [_COLOURS[(number - 1) % len(_COLOURS)] for number in own]


def _dash(line: Line) -> str:
    return ' stroke-dasharray="6 4"' if line.is_dashed else ""


def _drawn(line: Line, colour: str, x: _Axis, y: _Axis) -> list[str]:
    parts = []
    if line.band:
        edges = [(px, high) for (px, _), (_, high) in zip(line.points, line.band, strict=True)]
        edges += [(px, low) for (px, _), (low, _) in reversed(list(zip(line.points, line.band, strict=True)))]
        parts.append(f'<polygon points="{_path(edges, x, y)}" fill="{colour}" fill-opacity=".18"/>')
    if line.has_line:
        stroke = f'stroke="{colour}" stroke-width="2"{_dash(line)}'
        parts.append(f'<polyline points="{_path(line.points, x, y)}" fill="none" {stroke}/>')
    if line.has_markers:
        for px, py in line.points:
            tip = f"<title>{escape(line.name)}: {si(px)}, {si(py)}</title>"
            parts.append(f'<circle cx="{x.at(px):.1f}" cy="{y.at(py):.1f}" r="3.5" fill="{colour}">{tip}</circle>')
    return parts


def _path(points: Sequence[Pair], x: _Axis, y: _Axis) -> str:
    return " ".join(f"{x.at(px):.1f},{y.at(py):.1f}" for px, py in points)


def _legend(lines: Sequence[Line]) -> list[str]:
    parts = []
    for number, (line, colour) in enumerate(zip(lines, _colours(lines), strict=True)):
        at, start = _TOP + 20 + 18 * number, _LEFT + 12
        stroke = f'stroke="{colour}" stroke-width="{8 if line.band else 3}"{_dash(line)}'
        parts.append(f'<line x1="{start}" x2="{start + 22}" y1="{at - 4}" y2="{at - 4}" {stroke}/>')
        if line.has_markers:
            parts.append(f'<circle cx="{start + 11}" cy="{at - 4}" r="3.5" fill="{colour}"/>')
        parts.append(f'<text class="small" x="{start + 30}" y="{at}">{escape(line.name)}</text>')
    return parts
