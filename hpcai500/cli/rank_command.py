"""`hpcai500 rank`."""

import argparse
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.errors import InputError
from hpcai500.report.tables import ranking_csv, ranking_text
from hpcai500.score.ranking import collect, rank, rank_published


def main(args: argparse.Namespace) -> int:
    exponents = parse_exponents(args.exponent)
    collected = collect([Path(path) for path in args.paths])
    lists = [ranked for exponent in exponents for ranked in rank(collected.results, exponent)]
    published = [rank_published(p, exponent) for p in collected.published for exponent in exponents]
    style = "json" if args.json else args.format
    if style == "json":
        print_json(
            {
                "lists": [ranked.model_dump(mode="json") for ranked in lists],
                "published": [listed.model_dump(mode="json") for listed in published],
                "not_ranked": [item._asdict() for item in collected.left_out],
            }
        )
    elif style == "csv":
        print(ranking_csv(lists, published))
    else:
        print(ranking_text(lists, published, collected.left_out, markdown=style == "md"))
    return 0


def parse_exponents(text: str | None) -> list[int | None]:
    """`5,10` as numbers; `[None]`, each list's own, for no text."""
    if text is None:
        return [None]
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--exponent {text}: not positive whole numbers", "write e.g. 5 or 5,10")
    return [int(part) for part in parts]
