"""The ranking as one HTML file that needs nothing else: no network, no server, works from disk."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from hpcai500 import __version__
from hpcai500.report.columns import TITLES, columns, half_width
from hpcai500.report.page_data import page_data
from hpcai500.report.tables import published_notes, scaling_line
from hpcai500.score.collection import LeftOut
from hpcai500.score.published import PublishedRankedList
from hpcai500.score.ranking import RankedList
from hpcai500.words import si

_MOST_BYTES = 1_000_000
_DATA = "\0data\0"
"""Where the data will stand: no name holds this."""
_FOLDER = Path(__file__).parent / "web"


def ranking_page(
    lists: Sequence[RankedList], published: Sequence[PublishedRankedList], left_out: Sequence[LeftOut]
) -> str:
    """At most 1 MB, but where the tables and figures alone take more; curves and layers get what these leave."""
    head, _, tail = _rendered(lists, published, left_out).rpartition(_DATA)
    room = _MOST_BYTES - len(head.encode()) - len(tail.encode()) - 1
    return f"{head}{page_data(lists, published, room)}{tail}"


def _rendered(
    lists: Sequence[RankedList], published: Sequence[PublishedRankedList], left_out: Sequence[LeftOut]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "si": si,
        "half_width": half_width,
        "sort_key": _sort_key,
        "scaling_line": scaling_line,
        "sentence": _sentence,
    }
    entries = [entry for ranked in lists for entry in ranked.entries]
    return environment.get_template("page.html.j2").render(
        version=__version__,
        style=_inline("page.css"),
        script=_inline("page.js"),
        data=_DATA,
        columns=columns(lists[0].by if lists else "vflops"),
        measures=TITLES,
        lists=lists,
        published=[(listed, published_notes(listed)) for listed in published],
        left_out=left_out,
        num_entries=len(entries),
        num_published=sum(len(listed.entries) for listed in published),
        num_runs=sum(len(entry.runs) for entry in entries),
        workloads=_choices([*lists, *published], "workload"),
        problems=_choices([*lists, *published], "problem"),
        levels=_choices([*lists, *published], "level"),
    )


def _inline(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _choices(lists: Sequence[Any], field: str) -> list[str]:
    return sorted({getattr(one, field) for one in lists})


def _sentence(text: str) -> str:
    """`text` from a capital on; names within it stay as they are."""
    return text[:1].upper() + text[1:]


def _sort_key(value: Any) -> str:
    """What a column is sorted by, as the text of an attribute; empty sorts last."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)
