"""A ranking as a record: what `hpcai500 rank --json` prints, and all that its other formats are made from."""

from collections.abc import Sequence
from typing import Literal

from hpcai500 import __version__
from hpcai500.score.ranking.entries import RankedList
from hpcai500.score.ranking.published import PublishedRankedList
from hpcai500.score.ranking.scaling import sensitivity
from hpcai500.score.record.limits import LONGEST_SHOWN
from hpcai500.score.record.reading import NotRanked
from hpcai500.spec.models import Frozen
from hpcai500.text import one_line


class RankingDocument(Frozen):
    """docs/schemas/ranking.schema.json is its schema."""

    schema_version: Literal[1] = 1
    hpcai500_version: str = __version__
    ranking_file_sha256: str | None = None
    """SHA-256 of the ranking file that it was read from; null if it was made from results."""
    lists: tuple[RankedList, ...]
    published: tuple[PublishedRankedList, ...]
    not_ranked: tuple[NotRanked, ...]


def ranking_document(
    lists: Sequence[RankedList],
    published: Sequence[PublishedRankedList] = (),
    not_ranked: Sequence[NotRanked] = (),
) -> RankingDocument:
    return RankingDocument(lists=tuple(lists), published=tuple(published), not_ranked=tuple(map(_shown, not_ranked)))


def _shown(item: NotRanked) -> NotRanked:
    """`item` with a reason that a reader of the document accepts."""
    return item.model_copy(update={"reason": one_line(item.reason, LONGEST_SHOWN)})


def with_sensitivity(document: RankingDocument, exponents: Sequence[int]) -> RankingDocument:
    """`document` with the sensitivity of each list to `exponents`, unless it has one already."""
    lists = [
        ranked.model_copy(
            update={
                "sensitivity": sensitivity(
                    [[(run.flops, run.achieved_quality) for run in entry.runs] for entry in ranked.entries],
                    ranked.target_quality,
                    exponents,
                )
            }
        )
        if ranked.sensitivity is None
        else ranked
        for ranked in document.lists
    ]
    published = [
        listed.model_copy(
            update={
                "sensitivity": sensitivity(
                    [[(entry.flops, entry.achieved_quality)] for entry in listed.entries],
                    listed.target_quality,
                    exponents,
                )
            }
        )
        if listed.sensitivity is None
        else listed
        for listed in document.published
    ]
    return document.model_copy(update={"lists": tuple(lists), "published": tuple(published)})
