"""A ranking as JSON, which `hpcai500 rank` reads again."""

from hpcai500.score.ranking.document import RankingDocument


def render(document: RankingDocument, *, is_narrow: bool = False) -> str:
    return document.model_dump_json(indent=2)
