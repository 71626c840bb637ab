"""The ranks that the data allow each entry of a list."""

import math
from collections.abc import Sequence

from hpcai500.score.ranking.statistics import Summary
from hpcai500.score.ranking.student import CONFIDENCE, tail

_FEW = 32
"""Entries that are compared one by one: NumPy and SciPy take longer to import than so few pairs to compute."""


def undecided_ranks(summaries: Sequence[Summary]) -> list[tuple[int, int]]:
    """For each entry the lowest and highest rank that the data allow; `summaries` are in order, best first.

    The marginal confidence set of a rank (Mogstad, Romano, Shaikh, Wilhelm 2024, "Inference for ranks"): from
    1 + the entries surely better to all less the entries surely worse. A pair is sure if its means differ by Welch's
    (1947) test at 5 %, two-sided, corrected by Holm (1979) over the pairs of that entry. One run decides nothing.
    """
    if len(summaries) > _FEW:
        from hpcai500.score.ranking.many_rank_ranges import ranges_of_many

        return ranges_of_many(summaries)
    count = len(summaries)
    ranges = []
    for index in range(count):
        sure = _surely_different(index, summaries)
        better = sum(place < index for place in sure)
        ranges.append((1 + better, count - len(sure) + better))
    return ranges


def _surely_different(index: int, summaries: Sequence[Summary]) -> list[int]:
    """The places of the entries that surely differ from entry `index`."""
    pairs = [(_p_value(summaries[index], other), place) for place, other in enumerate(summaries) if place != index]
    sure = []
    for number, (p, place) in enumerate(sorted(pairs)):
        if p > (1 - CONFIDENCE) / (len(pairs) - number):
            break
        sure.append(place)
    return sure


def _p_value(one: Summary, other: Summary) -> float:
    """Welch's (1947) two-sided p of a difference of two means; 1 if nothing is known of a spread."""
    if one.standard_deviation is None or other.standard_deviation is None:
        return 1.0
    distance = abs((one.mean or 0.0) - (other.mean or 0.0))
    errors = [one.standard_deviation**2 / one.num_runs, other.standard_deviation**2 / other.num_runs]
    total = sum(errors)
    if not total:
        return 0.0 if distance else 1.0
    ours, theirs = (error / total for error in errors)  # shares, so that no square overflows
    freedom = 1 / (ours**2 / (one.num_runs - 1) + theirs**2 / (other.num_runs - 1))
    return 2 * tail(distance / math.sqrt(total), freedom)
