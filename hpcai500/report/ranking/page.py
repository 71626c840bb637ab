"""A ranking as one HTML file that needs nothing else: no network, no server, works from disk."""

import math
from collections.abc import Sequence
from typing import Any

from hpcai500.report.ranking.columns import columns, half_width
from hpcai500.report.ranking.lines import origin_line, published_notes, scaling_line
from hpcai500.report.ranking.page_data import page_data
from hpcai500.report.templates import Filters, render_page
from hpcai500.score.ranking.document import RankingDocument, with_sensitivity
from hpcai500.score.ranking.metrics import METRICS
from hpcai500.score.ranking.scaling import EXPONENTS
from hpcai500.text import si

_MOST_BYTES = 1_000_000
_DATA = "\0data\0"
"""Where the data will be: no name holds this."""


def render(document: RankingDocument, *, is_narrow: bool = False) -> str:
    """A page of at most 1 MB, unless tables and figures need more. Curves and layers get what these leave."""
    whole = with_sensitivity(document, EXPONENTS)
    head, _, tail = _rendered(whole).rpartition(_DATA)
    room = _MOST_BYTES - len(head.encode()) - len(tail.encode()) - 1
    return f"{head}{page_data(whole.lists, whole.published, room)}{tail}"


def _rendered(document: RankingDocument) -> str:
    filters: Filters = {
        "si": si,
        "half_width": half_width,
        "sort_key": _sort_key,
        "scaling_line": scaling_line,
        "sentence": _sentence,
    }
    lists, published = document.lists, document.published
    entries = [entry for ranked in lists for entry in ranked.entries]
    return render_page(
        "ranking",
        filters,
        styles=("common.css",),
        version=document.hpcai500_version,
        origin=origin_line(document),
        data=_DATA,
        columns=columns(lists[0].by if lists else "vflops"),
        metrics=METRICS,
        lists=lists,
        published=[(listed, published_notes(listed)) for listed in published],
        left_out=document.not_ranked,
        num_entries=len(entries),
        num_published=sum(len(listed.entries) for listed in published),
        num_runs=sum(len(entry.runs) for entry in entries),
        workloads=_choices([*lists, *published], "workload"),
        problems=_choices([*lists, *published], "problem"),
        levels=_choices([*lists, *published], "level"),
    )


def _choices(lists: Sequence[Any], field: str) -> list[str]:
    return sorted({getattr(one, field) for one in lists})


def _sentence(text: str) -> str:
    """`text` with a capital at its start; names in it stay as they are."""
    return text[:1].upper() + text[1:]


def _sort_key(value: Any) -> str:
    """The value that a column is sorted by, as the text of an attribute; an empty one sorts last."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)
