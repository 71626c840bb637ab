"""`hpcai500 rank`: results, or archives of them, as a ranking in one of several formats."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_results
from hpcai500.cli.output import write_named
from hpcai500.errors import InputError

if TYPE_CHECKING:
    from hpcai500.exchange.archives import Opened

_MOST_EXPONENT = 100
_SUFFIXES = {
    ".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".json": "json", ".txt": "table", "": "table"
}  # fmt: skip


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "rank", main, "rank results by Valid FLOPS")
    add_results(parser)
    parser.add_argument(
        "--by",
        default="vflops",
        choices=("vflops", "vflops_per_watt", "time_to_quality", "flops", "quality"),
        help="what to rank by (default: vflops)",
    )
    parser.add_argument("--format", choices=("table", "md", "csv", "json", "html"), help="default: a table")
    parser.add_argument("--output", metavar="FILE", help="write there; its ending decides the format: ranking.html")
    parser.add_argument(
        "--exponent", metavar="N[,N]|A..B", help="score with other penalty exponents; a range shows how ranks move"
    )


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.archives import opened
    from hpcai500.score.ranking.collection import without_garbage_collection

    style = "json" if args.json else _style(args.format, args.output)
    with without_garbage_collection(), opened(args.paths, unverified=args.unverified) as found:
        text = _ranking(args, style, found)
    if args.output:
        write_named(args.output, text + "\n")
    else:
        print(text)
    return 0


def _style(style: str | None, output: str | None) -> str:
    """The format that was asked for, else that of the file's ending, else a table.

    Raises:
        InputError: for an ending of no format.
    """
    if style or not output:
        return style or "table"
    suffix = Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        endings = ", ".join(filter(None, _SUFFIXES))
        raise InputError(
            f"--output {output}: {suffix} says no format", f"end it in one of {endings}, or add --format"
        )
    return _SUFFIXES[suffix]


def _ranking(args: argparse.Namespace, style: str, found: Opened) -> str:
    from hpcai500.report.ranking.document import ranking_csv, ranking_document
    from hpcai500.report.ranking.tables import ranking_markdown, ranking_text
    from hpcai500.score.ranking.collection import collect
    from hpcai500.score.ranking.published import rank_published
    from hpcai500.score.ranking.ranking import rank, with_compliance
    from hpcai500.score.ranking.scaling import EXPONENTS

    exponents, moved = parse_exponents(args.exponent)
    if style == "html":
        moved = moved or EXPONENTS
    collected = collect(found.sources)
    collected.left_out.extend(found.refused)
    lists = with_compliance(
        ranked
        for exponent in exponents
        for ranked in rank(collected.runs, exponent, by=args.by, diverged=collected.diverged, exponents=moved)
    )
    published = [
        rank_published(path, exponent, exponents=moved) for path in collected.published for exponent in exponents
    ]
    match style:
        case "json":
            return ranking_document(lists, published, collected.left_out).model_dump_json(indent=2)
        case "csv":
            return ranking_csv(lists, published, collected.left_out)
        case "md":
            return ranking_markdown(lists, published, collected.left_out)
        case "html":
            from hpcai500.report.ranking.page import ranking_page

            return ranking_page(lists, published, collected.left_out)
    is_narrow = not args.output and sys.stdout.isatty()
    return ranking_text(lists, published, collected.left_out, is_narrow=is_narrow)


def parse_exponents(text: str | None) -> tuple[list[int | None], tuple[int, ...]]:
    """`5,10`: a list scored with each. `1..20`: each list's own, and how its order moves from 1 to 20."""
    if text is None:
        return [None], ()
    hint = f"write e.g. 5, or 5,10, or 1..20; at most {_MOST_EXPONENT}"
    if match := re.fullmatch(r"(\d{1,3})\.\.(\d{1,3})", text):
        low, high = int(match[1]), int(match[2])
        if not 1 <= low <= high <= _MOST_EXPONENT:
            raise InputError(f"--exponent {text}: no range of positive whole numbers", hint)
        return [None], tuple(range(low, high + 1))
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,3}", part) and 1 <= int(part) <= _MOST_EXPONENT for part in parts):
        raise InputError(f"--exponent {text}: not positive whole numbers", hint)
    return [int(part) for part in parts], ()
